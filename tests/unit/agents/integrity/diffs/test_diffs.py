"""Diffs of disks in memory: made, applied to a new image and in place, on wrong bases, across crashes."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.disk_diffs import KEY, content_of, diff_of, read_whole
from fakes.image import MemoryImage, extents_of
from fakes.image_writer import Crash, WritableMemory
from korora.agents.integrity.diffs.applying import applied_in_place, walked
from korora.agents.integrity.diffs.making import Base, base_of, differing, leaves_of, made
from korora.agents.integrity.disks.measuring import KeptLeaves, Leaves, read_leaves
from korora.errors import IntegrityError, RefusedError, ToolError
from korora.protocol.content_tree import CHUNK_BYTES, leaf, zeros
from korora.protocol.disk_diff.chunks import Data, Record, Zeros, data
from korora.protocol.disk_diff.records import read
from korora.protocol.disk_diff.statement import DiskDiff, head

MIB = CHUNK_BYTES
NOISE = random.Random(7).randbytes(MIB)


def quiet(_: object) -> None:
    pass


def image(disk: bytes) -> MemoryImage:
    """With the zeros that it has by whole chunks told, as QEMU does."""
    chunks = [disk[at : at + MIB] for at in range(0, len(disk), MIB)]
    return MemoryImage(disk, extents_of((len(one), not one.strip(b"\0")) for one in chunks))


def statement(base: Base, disk: bytes, out: io.BytesIO) -> DiskDiff:
    done = made(base, image(disk), out.write, quiet)
    writing = done.writing
    return DiskDiff(
        by="alice",
        at=1,
        base=done.base,
        result=done.result,
        records=writing.records,
        length=writing.length,
        digest=writing.digest,
    )


def diff(base: Base, disk: bytes) -> bytes:
    out = io.BytesIO()
    said = statement(base, disk, out)
    return head(said, [KEY]) + out.getvalue()


def kept(disk: bytes) -> Base:
    """As an earlier visit left it."""
    leaves = KeptLeaves()
    for one in leaves_of(image(disk)):
        leaves.add(one)
    done = leaves.done()
    assert done is not None
    return Base(len(disk), read_leaves(done))


def new_image(base: bytes, file: bytes) -> bytes:
    said, records = read_whole(file)
    result = bytearray(said.result.size)

    def put(offset: int, content: bytes) -> None:
        assert not any(result[offset : offset + len(content)]), "written twice"
        result[offset : offset + len(content)] = content

    walked(said, iter(records), image(base), put, quiet)
    return bytes(result)


PIECES = [b"", b"a", NOISE[:5000], NOISE, NOISE[::-1], bytes(70_000) + b"b"]
disks = st.tuples(
    st.lists(st.sampled_from(PIECES), max_size=4),
    st.sampled_from([b"", b"x" * 512, bytes(4608), NOISE[:9001]]),
).map(lambda parts: b"".join(one.ljust(MIB, b"\0") for one in parts[0]) + parts[1])


@settings(max_examples=60, deadline=None)
@given(disks, disks)
def test_what_is_made_of_two_disks_turns_one_into_the_other(base: bytes, result: bytes) -> None:
    file = diff(base_of(image(base)), result)
    said, _ = read_whole(file)
    assert (said.base, said.result) == (content_of(base), content_of(result))
    assert new_image(base, file) == result


@settings(max_examples=30, deadline=None)
@given(disks, disks)
def test_kept_leaves_do_as_well_as_the_base(base: bytes, result: bytes) -> None:
    file = diff(kept(base), result)
    said, _ = read_whole(file)
    assert (said.base, said.result) == (content_of(base), content_of(result))
    assert new_image(base, file) == result


@settings(max_examples=40, deadline=None)
@given(disks, disks, disks)
def test_on_another_base_a_diff_is_refused(base: bytes, result: bytes, other: bytes) -> None:
    file = diff(base_of(image(base)), result)
    if other == base:
        return
    with pytest.raises(IntegrityError) as failed:
        new_image(other, file)
    assert failed.value.kind == "wrong-base"


def test_only_changed_blocks_are_in_it() -> None:
    base = NOISE * 8
    result = bytearray(base)
    for at in (5, MIB - 1, 3 * MIB + 4096, 3 * MIB + 4097):
        result[at] ^= 1
    said, records = read_whole(diff(base_of(image(base)), bytes(result)))
    assert said.length < 4 * 4096 + 500
    bits = {one.first: one.blocks for one in records if isinstance(one, Data)}
    assert bits == {0: 1 << 255 | 1, 3: 1 << 254}


def test_zeros_cost_nothing_however_many() -> None:
    huge = MemoryImageOfZeros(1 << 49)
    out = io.BytesIO()
    base = Base(1 << 50, [Leaves(1 << 30, zeros(0))])
    done = made(base, huge, out.write, quiet)
    assert (done.writing.records, done.result.size) == (0, 1 << 49)
    grown = made(Base(0, []), huge, out.write, quiet)
    assert grown.writing.records == 1


class MemoryImageOfZeros(MemoryImage):
    """Of any size."""

    def __init__(self, size: int) -> None:
        object.__setattr__(self, "content", b"")
        object.__setattr__(self, "said", extents_of([(size, True)]))
        object.__setattr__(self, "broken", ())
        object.__setattr__(self, "length", size)

    @property
    def size(self) -> int:
        return self.said[0].length if self.said else 0


@given(st.integers(1, MIB), st.integers(0, MIB - 1), st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_blocks_that_differ_are_those_with_a_byte_that_does(length: int, at: int, byte: int) -> None:
    old = bytearray(NOISE[:length])
    new = bytearray(old)
    new[at % length] = byte
    bits = differing(bytes(old), bytes(new))
    assert bits == ((1 << (255 - at % length // 4096)) if old != new else 0)


# -- made while somebody writes ----------------------------------------------------------------------------


def test_a_disk_that_is_written_meanwhile_has_no_diff() -> None:
    for changing in ("base", "image"):
        base, disk = image(NOISE * 2), image(NOISE[::-1] * 2)
        # Whoever hashes sees one content, who reads again another.
        hashed = list(leaves_of(base))
        if changing == "base":
            base = image(bytes(1) + NOISE[1:] + NOISE)
        else:
            hashed = [Leaves(1, leaf(b"?"))] * 2
        with pytest.raises(RefusedError) as failed:
            made(Base(base.size, hashed, base), disk, io.BytesIO().write, quiet)
        assert failed.value.kind == "image-changed"


@pytest.mark.parametrize("count", [1, 3])
def test_leaves_of_a_disk_of_another_size_are_refused(count: int) -> None:
    with pytest.raises(IntegrityError) as failed:
        made(Base(2 * MIB, [Leaves(1, leaf(NOISE))] * count), image(NOISE), io.BytesIO().write, quiet)
    assert failed.value.kind == "bad-leaves"


def test_a_part_that_cannot_be_read_is_an_error() -> None:
    broken = MemoryImage(NOISE * 3, broken={MIB + 7})
    for base, disk in ((base_of(broken), image(NOISE)), (base_of(image(NOISE)), broken)):
        with pytest.raises(ToolError) as failed:
            made(base, disk, io.BytesIO().write, quiet)
        assert failed.value.kind == "unreadable"


# -- signed, and not what it says --------------------------------------------------------------------------


def test_a_diff_that_makes_another_root_than_was_signed_is_refused() -> None:
    base = NOISE * 2
    for records in ([], [Zeros(0, 1)], [data(1, leaf(bytes(MIB)), (1 << 256) - 1, bytes(MIB))]):
        said, found = read_whole(diff_of(base, NOISE + NOISE[::-1], records))
        with pytest.raises(IntegrityError) as failed:
            walked(said, iter(found), image(base), lambda *_: None, quiet)
        assert failed.value.kind == "bad-diff"


# -- in place ----------------------------------------------------------------------------------------------

BASE = NOISE + NOISE[::-1] + bytes(MIB) + NOISE + NOISE[:4608]
RESULT = (
    NOISE[:9000] + b"!" + NOISE[9001:] + bytes(MIB) + NOISE[:70_000].ljust(MIB, b"\0") + NOISE + bytes(4608)
)


def records_of(file: bytes) -> tuple[DiskDiff, Iterator[Record]]:
    said, _ = read_whole(file)
    return said, read(io.BytesIO(file[8192:]).read, said)


def test_in_place_only_what_changed_is_written() -> None:
    file = diff(base_of(image(BASE)), RESULT)
    disk = WritableMemory(bytearray(BASE))
    applied_in_place(*records_of(file), disk, quiet)
    assert disk.stored == RESULT
    assert disk.put_bytes < 4096 + 70_000 + 65536


def test_a_crash_anywhere_is_made_good_by_doing_it_again() -> None:
    for file in (diff(base_of(image(BASE)), RESULT), diff(kept(BASE), RESULT)):
        for seed in range(3):
            for calls in range(20):
                stored = bytearray(BASE)
                chosen = random.Random(100 * seed + calls)
                finished = False
                for again in (calls, chosen.randrange(6), None):
                    disk = WritableMemory(stored, crash_in=again, chosen=chosen)
                    try:
                        applied_in_place(*records_of(file), disk, quiet)
                        finished = True
                    except Crash:
                        continue
                assert finished
                assert stored == RESULT, (seed, calls)


def test_in_place_a_wrong_chunk_is_seen_before_it_is_written() -> None:
    file = diff(base_of(image(BASE)), RESULT)
    other = bytearray(BASE)
    other[100_000] ^= 1
    disk = WritableMemory(bytearray(other))
    with pytest.raises(IntegrityError) as failed:
        applied_in_place(*records_of(file), disk, quiet)
    assert failed.value.kind == "wrong-base"
    disk.flush()
    assert disk.stored == other


def test_in_place_the_size_is_looked_at_first() -> None:
    file = diff(base_of(image(BASE)), RESULT)
    with pytest.raises(IntegrityError, match="bytes"):
        applied_in_place(*records_of(file), WritableMemory(bytearray(BASE + bytes(512))), quiet)


def test_a_full_storage_ends_it_and_more_room_makes_it_good() -> None:
    said, _ = records_of(diff(kept(BASE), RESULT))
    disk = WritableMemory(bytearray(BASE), room=MIB)
    with pytest.raises(ToolError) as failed:
        applied_in_place(*records_of(diff(kept(BASE), RESULT)), disk, quiet)
    assert failed.value.kind == "image-full"
    disk = replace(disk, room=None)
    applied_in_place(*records_of(diff(kept(BASE), RESULT)), disk, quiet)
    assert content_of(bytes(disk.stored)) == said.result
