"""The format of diffs, byte by byte, and everything that a reader refuses."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
from pathlib import Path

import pytest
from backports import zstd
from fuzz.disk_diff import run
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.disk_diffs import (
    KEY,
    OTHER_KEY,
    TRUSTED,
    applied,
    content_of,
    diff_of,
    read_whole,
    records_of,
)
from korora.errors import IntegrityError
from korora.protocol import canonical, dsse
from korora.protocol.content_tree import CHUNK_BYTES, leaf
from korora.protocol.disk_diff.chunks import (
    BLOCK_BYTES,
    MAX_FRAME_BYTES,
    Data,
    Zeros,
    blocks_of,
    data,
    first_unlike,
    length_of,
    runs,
)
from korora.protocol.disk_diff.records import TRAILER_BYTES, Writing, read
from korora.protocol.disk_diff.statement import HEAD_BYTES, MAX_DISK_BYTES, head, opened, peek

PAGE = (Path(__file__).parents[4] / "docs/DIFFS.md").read_text()
ABC = b"abc".ljust(512, b"\0")
MIB = CHUNK_BYTES


def disk(*chunks: bytes) -> bytes:
    return b"".join(one.ljust(MIB, b"\0") for one in chunks)


BASE = disk(b"one", b"two", b"", b"four") + bytes(700)
RESULT = disk(b"one", b"", b"three", b"f0ur") + b"end".ljust(700, b"\0")


def refused(file: bytes, kind: str = "bad-diff") -> str:
    with pytest.raises(IntegrityError) as failed:
        read_whole(file)
    assert failed.value.kind == kind, failed.value.message
    return failed.value.message


# -- vectors -----------------------------------------------------------------------------------------------


def test_the_vector_of_the_page_comes_out() -> None:
    frame = bytes.fromhex("28b52ffd600001011000") + ABC
    record = Data(0, leaf(ABC), 1 << 255, frame)
    assert record.patched(bytes(512), 512) == ABC
    file = diff_of(bytes(512), ABC, [record])
    said = peek(file[:HEAD_BYTES])
    assert canonical.encoded(said).decode() in PAGE
    leaf_and_blocks = f"{leaf(ABC).hex()} ‖ 80 ‖ 31 × 00"
    assert f"44 ‖ {bytes(8).hex()} ‖ {leaf_and_blocks} ‖ {len(frame):08x} ‖ frame" in PAGE
    assert said.digest.removeprefix("blake3:") in PAGE
    assert hashlib.sha256(file).hexdigest() in PAGE
    assert f"{len(file):,} bytes with the SHA-256" in PAGE
    assert f"{MAX_FRAME_BYTES:,} bytes long" in PAGE
    assert file[HEAD_BYTES:] == (
        b"D" + bytes(8) + leaf(ABC) + b"\x80" + bytes(31) + len(frame).to_bytes(4, "big") + frame
        + b"E" + (1).to_bytes(8, "big") + bytes.fromhex(said.digest.removeprefix("blake3:"))
    )  # fmt: skip


def test_the_kinds_that_the_page_names_are_those_in_force() -> None:
    source = Path(__file__).parents[4] / "src/korora"
    texts = "".join(path.read_text() for path in source.rglob("*.py"))
    for kind in ("bad-diff", "wrong-base", "signature"):
        assert f"`{kind}`" in PAGE
        assert f'kind="{kind}"' in texts


# -- what is well ------------------------------------------------------------------------------------------


def test_a_diff_turns_the_base_into_the_result() -> None:
    assert applied(BASE, diff_of(BASE, RESULT)) == RESULT
    assert applied(RESULT, diff_of(RESULT, BASE)) == BASE


def test_a_diff_of_nothing_has_no_records() -> None:
    said, records = read_whole(diff_of(BASE, BASE))
    assert (records, said.length) == ([], TRAILER_BYTES)


pieces = st.lists(st.sampled_from([b"", b"a", b"b" * 5000, b"c" * MIB]), max_size=4)


@settings(max_examples=40, deadline=None)
@given(pieces, pieces, st.integers(0, 9000), st.integers(0, 9000))
def test_any_two_disks_have_a_diff(one: list[bytes], other: list[bytes], tail: int, other_tail: int) -> None:
    base, result = disk(*one) + b"x" * tail, disk(*other) + b"y" * other_tail
    assert applied(base, diff_of(base, result)) == result


@given(st.integers(0, 2**256 - 1), st.integers(1, MIB))
def test_runs_of_blocks_are_just_the_bits_that_are_set(bits: int, length: int) -> None:
    bits &= blocks_of(length)
    found = 0
    last = -1
    for begin, end in runs(bits, length):
        assert last < begin < end <= length
        last = end
        for block in range(begin // BLOCK_BYTES, -(-end // BLOCK_BYTES)):
            found |= 1 << (255 - block)
    assert found == bits


@given(st.integers(0, 5 * MIB), st.integers(0, 5 * MIB))
def test_what_must_be_named_begins_where_the_lengths_of_chunks_differ(base: int, result: int) -> None:
    unlike = [
        chunk for chunk in range(-(-result // MIB)) if length_of(chunk, base) != length_of(chunk, result)
    ]
    assert list(range(first_unlike(base, result), -(-result // MIB))) == unlike


def test_what_cannot_be_compressed_fits_a_record() -> None:
    noise = hashlib.shake_256(b"noise").digest(MIB)
    record = data(0, leaf(noise), blocks_of(MIB), noise)
    assert len(record.frame) <= MAX_FRAME_BYTES
    assert applied(bytes(MIB), diff_of(bytes(MIB), noise)) == noise


# -- damaged on its way ------------------------------------------------------------------------------------


def test_every_cut_is_seen() -> None:
    file = diff_of(BASE, RESULT)
    for end in [*range(0, HEAD_BYTES, 511), *range(HEAD_BYTES, len(file))]:
        refused(file[:end])
    refused(file + b"\0")


def test_every_flipped_bit_is_seen() -> None:
    file = diff_of(BASE, RESULT)
    for at in [*range(0, 2200, 13), HEAD_BYTES - 1, *range(HEAD_BYTES, len(file))]:
        damaged = bytearray(file)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(IntegrityError) as failed:
            read_whole(bytes(damaged))
        assert failed.value.kind in {"bad-diff", "signature", "malformed-statement"}


def test_an_unfinished_diff_is_none() -> None:
    assert "never finished" in refused(bytes(HEAD_BYTES) + diff_of(BASE, RESULT)[HEAD_BYTES:])


def test_records_of_another_diff_are_not_taken() -> None:
    other = diff_of(BASE, RESULT[:-1] + b"!")
    refused(diff_of(BASE, RESULT)[:HEAD_BYTES] + other[HEAD_BYTES:])


def test_a_diff_of_a_stranger_is_not_taken() -> None:
    assert "0 of the expected keys" in refused(diff_of(BASE, RESULT, key=OTHER_KEY), "signature")
    stolen = dsse.parse(diff_of(BASE, RESULT)[20 : 20 + int.from_bytes(diff_of(BASE, RESULT)[16:20], "big")])
    other = dsse.envelope("application/vnd.korora.request+json", stolen.payload, [KEY])
    wrapped = (b"KORORA DISKDIFF\n" + len(other).to_bytes(4, "big") + other).ljust(HEAD_BYTES, b"\0")
    refused(wrapped + diff_of(BASE, RESULT)[HEAD_BYTES:], "signature")


# -- signed, and wrong all the same ------------------------------------------------------------------------


def test_records_must_ascend_and_each_chunk_is_named_once() -> None:
    records = records_of(BASE, RESULT)
    for wrong in (records[::-1], [records[0], *records], [*records, Zeros(4, 1)], [Zeros(0, 2), *records]):
        refused(diff_of(BASE, RESULT, wrong))


@pytest.mark.parametrize(
    "wrong",
    [Zeros(0, 0), Zeros(0, 6), Zeros(5, 1), Zeros(2**64 - 1, 2), Zeros(0, 2**64 - 1), Zeros(4, 2**63)],
)
def test_zeros_end_with_the_disk(wrong: Zeros) -> None:
    refused(diff_of(BASE, RESULT, [wrong]))


def test_where_sizes_differ_all_is_named() -> None:
    grown = RESULT + bytes(3 * MIB)
    records = records_of(BASE, grown)
    assert applied(BASE, diff_of(BASE, grown)) == grown
    for at in range(len(records)):
        if records[at].first >= 4:
            assert "does not say what is in chunk" in refused(
                diff_of(BASE, grown, records[:at] + records[at + 1 :])
            )
    assert "chunk 4" in refused(diff_of(BASE, grown, []))


def test_a_part_of_a_chunk_that_the_base_does_not_have_is_refused() -> None:
    new = b"x".ljust(800, b"\0")
    part = data(1, leaf(bytes(9000)), 1 << 255, bytes(9000))
    refused(diff_of(disk(b"one"), disk(b"one") + bytes(9000), [part]))
    whole = data(1, leaf(new), 1 << 255, new)
    assert applied(disk(b"one"), diff_of(disk(b"one"), disk(b"one") + new, [whole]))[MIB:] == new


@pytest.mark.parametrize("bits", [0, 1 << 254, 3 << 254])
def test_blocks_that_are_none_are_refused(bits: int) -> None:
    refused(diff_of(BASE, RESULT, [*records_of(BASE, RESULT)[:-1], Data(4, leaf(b""), bits, b"x")]))


@pytest.mark.parametrize("changed", [{"records": 0}, {"records": 9}, {"length": 41}, {"length": 2**40}])
def test_more_or_less_than_was_signed_is_refused(changed: dict[str, int]) -> None:
    refused(diff_of(BASE, RESULT, changed=changed))


@pytest.mark.parametrize("size", [-1, MAX_DISK_BYTES + 1, 2**63, 2**70])
def test_an_absurd_size_is_no_statement(size: int) -> None:
    with pytest.raises(IntegrityError) as failed:
        read_whole(diff_of(BASE, RESULT, changed={"result": {"size": size, "root": content_of(RESULT).root}}))
    assert failed.value.kind == "malformed-statement"


def test_another_version_is_not_read() -> None:
    assert "version 2" in refused(diff_of(BASE, RESULT, changed={"version": 2}))


def frames() -> dict[str, bytes]:
    zeros = zstd.compress(bytes(4096))
    no_size: dict[int, int] = {zstd.CompressionParameter.content_size_flag: 0}
    large_window = zstd.ZstdCompressor(options=no_size | {zstd.CompressionParameter.window_log: 27})
    return {
        "a bomb": zstd.compress(bytes(64 * MIB)),
        "a bomb that does not say its size": zstd.compress(bytes(64 * MIB), options=no_size),
        "less": zstd.compress(bytes(4095)),
        "two frames": zeros + zeros,
        "something behind": zeros + b"x",
        "cut": zeros[:-1],
        "a large window": large_window.compress(bytes(4096)) + large_window.flush(),
        "noise": b"\x28\xb5\x2f\xfd" + bytes(range(200)),
    }


@pytest.mark.parametrize("name", frames())
def test_a_frame_gives_just_its_blocks(name: str) -> None:
    record = Data(0, leaf(bytes(MIB)), 1 << 255, frames()[name])
    tracemalloc.start()
    with pytest.raises(IntegrityError) as failed:
        record.patched(bytes(MIB), MIB)
    assert failed.value.kind == "bad-diff"
    assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    tracemalloc.stop()


def test_a_frame_that_is_too_long_is_not_even_read() -> None:
    writing = Writing()
    long = Data(0, bytes(32), 1 << 255, b"")
    body = writing.add(long)[:-4] + (MAX_FRAME_BYTES + 1).to_bytes(4, "big")
    said = peek(diff_of(BASE, RESULT, [long], changed={"length": 2**33})[:HEAD_BYTES])
    asked: list[int] = []
    file = io.BytesIO(body)

    def more(count: int) -> bytes:
        asked.append(count)
        return file.read(count)

    with pytest.raises(IntegrityError, match="claims"):
        list(read(more, said))
    assert max(asked) < 100


def test_a_chunk_that_does_not_become_its_leaf_is_the_bases_fault_or_the_diffs() -> None:
    part = data(0, leaf(disk(b"two")), 1 << 255, disk(b"two"))
    assert part.patched(disk(b"one"), MIB) == disk(b"two")
    for base in (b"\0" * 5000 + b"x", b""):
        wrong = bytes(disk(base) if base else b"")
        with pytest.raises(IntegrityError) as failed:
            part.patched(wrong, MIB)
        assert failed.value.kind == "wrong-base"
    whole = Data(0, leaf(b"other"), blocks_of(MIB), data(0, b"", blocks_of(MIB), disk(b"two")).frame)
    with pytest.raises(IntegrityError) as failed:
        whole.patched(b"", MIB)
    assert failed.value.kind == "bad-diff"


def test_a_head_is_signed_by_an_operator_or_a_host() -> None:
    said = peek(diff_of(BASE, RESULT)[:HEAD_BYTES])
    both = head(said, [KEY, OTHER_KEY])
    for key in (KEY, OTHER_KEY):
        assert opened(both, {key.key_id: key.public_key()}) == said
    assert opened(both, TRUSTED) == said


def test_a_quick_round_of_noise_ends_in_errors_or_in_the_result() -> None:
    ended = run(400, seed=5)
    assert set(ended) <= {
        "well",
        "another result",
        "bad-diff",
        "wrong-base",
        "signature",
        "malformed-statement",
    }
    assert len(ended) > 3
