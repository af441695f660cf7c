"""The content tree of a disk under writes: whatever was written and marked, the last root is the disk's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.image import MemoryImage, extents_of
from korora.agents.integrity.disks.content import digest
from korora.agents.integrity.disks.settling import PIECES_OF_A_CHUNK, Settling
from korora.errors import ToolError
from korora.protocol.content_tree import CHUNK_BYTES, PIECE_BYTES

SIZE = 5 * CHUNK_BYTES + 512
WRITES = st.lists(
    st.tuples(st.integers(0, SIZE - 1), st.integers(1, 3 * CHUNK_BYTES), st.integers(0, 255)), max_size=4
)


def root_of(content: bytes) -> str:
    return digest(MemoryImage(content), lambda _: None)


@given(st.lists(WRITES, min_size=1, max_size=4), st.integers(0, 6))
def test_after_any_writes_that_were_marked_the_root_is_that_of_the_disk(
    rounds: list[list[tuple[int, int, int]]], remembered: int
) -> None:
    content = bytearray(SIZE)
    settling = Settling(SIZE, remembered)
    settling.measure(MemoryImage(bytes(content)))
    for writes in rounds:
        marked = []
        for offset, length, value in writes:
            end = min(offset + length, SIZE)
            content[offset:end] = bytes([value]) * (end - offset)
            marked.append((offset, end - offset))
        settling.measure(MemoryImage(bytes(content), marked=sorted(marked)))
    assert settling.root() == root_of(bytes(content))


def test_what_was_not_written_is_not_read_again() -> None:
    content = bytes(range(256)) * (SIZE // 256)
    image = MemoryImage(content, marked=[(CHUNK_BYTES + 5, 2), (CHUNK_BYTES + 9, 2), (5 * CHUNK_BYTES, 512)])
    settling = Settling(SIZE)
    assert settling.measure(image) == 6 * PIECES_OF_A_CHUNK
    broken = MemoryImage(content, marked=image.marked, broken=[0, CHUNK_BYTES + PIECE_BYTES, 3 * CHUNK_BYTES])
    assert settling.measure(broken) == 1 + 1
    assert settling.root() == root_of(content)


def test_of_a_chunk_that_was_read_only_pieces_are_read_from_then_on() -> None:
    content = bytearray(bytes(range(256)) * (SIZE // 256))
    settling = Settling(SIZE)
    settling.measure(MemoryImage(bytes(content)))
    written = [(PIECE_BYTES - 1, 2), (CHUNK_BYTES + 5 * PIECE_BYTES, PIECE_BYTES), (3 * CHUNK_BYTES, 1)]
    for offset, length in written:
        content[offset : offset + length] = b"!" * length
    broken = [
        2 * PIECE_BYTES,
        CHUNK_BYTES - 1,
        CHUNK_BYTES,
        CHUNK_BYTES + 6 * PIECE_BYTES,
        4 * CHUNK_BYTES - 1,
    ]
    count = settling.measure(MemoryImage(bytes(content), marked=written, broken=broken))
    assert count == 2 + 1 + 1
    assert settling.root() == root_of(bytes(content))


def test_a_chunk_that_somebody_else_has_measured_is_read_whole_once() -> None:
    content = bytes(range(256)) * (SIZE // 256)
    measured, settling = Settling(SIZE), Settling(SIZE)
    measured.measure(MemoryImage(content))
    settling.adopt(measured.leaves())
    written = MemoryImage(content, marked=[(CHUNK_BYTES, 1)])
    assert [settling.measure(written) for _ in range(2)] == [PIECES_OF_A_CHUNK, 1]
    assert settling.root() == root_of(content)


def test_no_more_chunks_are_remembered_than_was_said() -> None:
    content = bytes(range(256)) * (SIZE // 256)
    settling = Settling(SIZE, remembered=2)
    everywhere = [(chunk * CHUNK_BYTES, 1) for chunk in range(4)]
    for _ in range(2):
        settling.measure(MemoryImage(content, marked=everywhere))
    assert settling.measure(MemoryImage(content, marked=everywhere[2:])) == 2
    assert settling.measure(MemoryImage(content, marked=everywhere[:2])) == 2 * PIECES_OF_A_CHUNK
    assert settling.root() == root_of(content)


def test_zeros_are_not_read_at_all() -> None:
    said = extents_of([(4 * CHUNK_BYTES, True), (CHUNK_BYTES + 512, False)])
    settling = Settling(SIZE)
    settling.measure(MemoryImage(bytes(SIZE), said, broken=range(0, 4 * CHUNK_BYTES, 512)))
    assert settling.root() == root_of(bytes(SIZE))


def test_after_one_that_broke_off_there_is_no_root_until_all_was_measured() -> None:
    content = bytes(SIZE)
    settling = Settling(SIZE)
    settling.measure(MemoryImage(content))
    with pytest.raises(ToolError):
        settling.measure(MemoryImage(content, marked=[(0, 1)], broken=[0]))
    with pytest.raises(ValueError, match="as a whole"):
        settling.root()
    assert settling.measure(MemoryImage(content, marked=[])) == 6 * PIECES_OF_A_CHUNK
    assert settling.root() == root_of(content)


def test_a_disk_of_no_bytes_has_its_root() -> None:
    settling = Settling(0)
    assert settling.measure(MemoryImage(b"")) == 0
    assert settling.root() == root_of(b"")
