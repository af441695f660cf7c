"""Journals (jbd2) that are made by hand, as no tool makes them."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from korora.adapters.filesystem import jbd2
from korora.adapters.filesystem.jbd2 import Journal
from korora.adapters.filesystem.journal import Overlaid

BLOCK = 1024
BLOCKS = 24
MAGIC = 0xC03B3998
DESCRIPTOR, COMMIT, SUPERBLOCK, REVOKE = 1, 2, 4, 5
REVOKES, WIDE, SUMS_2, SUMS_3 = 0x1, 0x2, 0x8, 0x10
ESCAPED, SAME_UUID, LAST = 1, 2, 8
UUID = bytes(range(16))
ALL = [0, WIDE, SUMS_2, SUMS_2 | WIDE, SUMS_3, SUMS_3 | WIDE]
each_kind = pytest.mark.parametrize(
    "features", ALL, ids=["plain", "64bit", "sums 2", "sums 2, 64bit", "sums 3", "sums 3, 64bit"]
)


def crc(begun: int, data: bytes) -> int:
    return int(google_crc32c.extend(begun ^ 0xFFFFFFFF, data)) ^ 0xFFFFFFFF


SEED = crc(0xFFFFFFFF, UUID)


class Memory:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size = len(content)
        self.reads = 0

    def read(self, offset: int, length: int) -> bytes:
        self.reads += 1
        return self._content[offset : offset + length]


def filled(number: int) -> bytes:
    return random.Random(number).randbytes(BLOCK)


@dataclass
class Crafted:
    features: int
    start: int = 1
    sequence: int = 7
    time: int = 100
    compatible: int = 0
    log: list[bytes] = field(default_factory=list)

    def header(self, kind: int) -> bytes:
        return struct.pack(">III", MAGIC, kind, self.sequence)

    def _summed(self, block: bytes, at: int) -> bytes:
        """With its checksum there, if there are any."""
        block = block.ljust(BLOCK, b"\0")
        if not self.features & (SUMS_2 | SUMS_3):
            return block
        return block[:at] + struct.pack(">I", crc(SEED, block)) + block[at + 4 :]

    def _tag(self, number: int, flags: int, data: bytes) -> bytes:
        total = crc(crc(SEED, struct.pack(">I", self.sequence)), data)
        if self.features & SUMS_3:
            return struct.pack(">IIII", number & 0xFFFFFFFF, flags, number >> 32, total)
        tag = struct.pack(">IHH", number & 0xFFFFFFFF, total & 0xFFFF if self.features & SUMS_2 else 0, flags)
        if self.features & WIDE:
            tag += struct.pack(">I", number >> 32)
        return tag + bytes(2 if self.features & SUMS_2 else 0)

    def blocks(self, of: dict[int, bytes]) -> Crafted:
        tags, contents = b"", []
        for nth, (number, content) in enumerate(of.items()):
            data = content
            flags = (SAME_UUID if nth else 0) | (LAST if nth == len(of) - 1 else 0)
            if data[:4] == struct.pack(">I", MAGIC):
                flags, data = flags | ESCAPED, bytes(4) + data[4:]
            tags += self._tag(number, flags, data) + (b"" if nth else UUID)
            contents.append(data)
        self.log += [self._summed(self.header(DESCRIPTOR) + tags, BLOCK - 4), *contents]
        return self

    def revokes(self, *numbers: int) -> Crafted:
        entries = b"".join(struct.pack(">Q" if self.features & WIDE else ">I", one) for one in numbers)
        head = self.header(REVOKE) + struct.pack(">I", 16 + len(entries))
        self.log.append(self._summed(head + entries, BLOCK - 4))
        return self

    def ends(self) -> Crafted:
        self.log.append(self._summed(self.header(COMMIT).ljust(48, b"\0") + struct.pack(">Q", self.time), 16))
        self.sequence = (self.sequence + 1) & 0xFFFFFFFF
        return self

    def content(self, first_sequence: int = 7) -> bytes:
        head = struct.pack(">III", MAGIC, SUPERBLOCK, 0)
        head += struct.pack(">IIIIIII", BLOCK, BLOCKS, 1, first_sequence, self.start, 0, self.compatible)
        head += struct.pack(">II", self.features | REVOKES, 0) + UUID
        head = head.ljust(BLOCK, b"\0")
        if self.features & (SUMS_2 | SUMS_3):
            head = head[:0x50] + b"\4" + head[0x51:]
            head = head[:0xFC] + struct.pack(">I", crc(0xFFFFFFFF, head)) + head[0x100:]
        blocks = [head] + [bytes(BLOCK)] * (BLOCKS - 1)
        assert len(self.log) < BLOCKS
        for nth, block in enumerate(self.log):
            blocks[(self.start - 1 + nth) % (BLOCKS - 1) + 1] = block
        return b"".join(blocks)


def brought(content: bytes) -> dict[int, bytes]:
    log = Journal(Memory(content), BLOCK)
    return {block: log.content(place) for block, place in log.newest().items()}


@each_kind
@pytest.mark.parametrize("start", range(1, BLOCKS))
def test_a_journal_goes_on_at_its_begin_where_it_ends(features: int, start: int) -> None:
    first, second = {5: filled(1), 9: filled(2), 4: filled(3)}, {9: filled(4), 6: filled(5)}
    made = Crafted(features, start).blocks(first).ends().blocks(second).ends()
    assert brought(made.content()) == first | second


@each_kind
def test_what_is_revoked_is_so_up_to_there(features: int) -> None:
    made = Crafted(features, 20).blocks({5: filled(1), 6: filled(2), 7: filled(3)}).ends()
    made.blocks({8: filled(4)}).revokes(5, 6, 8).ends().blocks({6: filled(5)}).ends()
    assert brought(made.content()) == {6: filled(5), 7: filled(3)}


@each_kind
def test_what_an_unfinished_transaction_revokes_is_there(features: int) -> None:
    made = Crafted(features).blocks({5: filled(1)}).ends().revokes(5).blocks({6: filled(2)})
    assert brought(made.content()) == {5: filled(1)}


@each_kind
def test_a_transaction_of_several_descriptors_is_one(features: int) -> None:
    made = Crafted(features).blocks({5: filled(1)}).blocks({6: filled(2)}).blocks({5: filled(3)}).ends()
    assert brought(made.content()) == {5: filled(3), 6: filled(2)}


@each_kind
def test_an_escaped_block_gets_its_begin_back(features: int) -> None:
    block = struct.pack(">I", MAGIC) + filled(1)[4:]
    made = Crafted(features).blocks({5: filled(2), 6: block}).ends()
    assert block not in made.content()
    assert brought(made.content()) == {5: filled(2), 6: block}


@pytest.mark.parametrize("features", [WIDE, SUMS_2 | WIDE, SUMS_3 | WIDE])
def test_a_block_may_lie_far_out(features: int) -> None:
    far = {(3 << 32) + 5: filled(1), 5: filled(2)}
    assert brought(Crafted(features).blocks(far).ends().content()) == far
    made = Crafted(features).blocks(far).ends().revokes((3 << 32) + 5).ends()
    assert brought(made.content()) == {5: filled(2)}


@each_kind
def test_transactions_are_counted_past_the_largest_number(features: int) -> None:
    made = Crafted(features, sequence=0xFFFFFFFF).blocks({5: filled(1)}).ends()
    made.blocks({5: filled(2)}).ends()
    assert brought(made.content(0xFFFFFFFF)) == {5: filled(2)}


@each_kind
def test_a_transaction_of_an_earlier_time_is_none(features: int) -> None:
    made = Crafted(features).blocks({5: filled(1)}).ends()
    made.sequence = 3
    made.blocks({6: filled(2)}).ends()
    assert brought(made.content()) == {5: filled(1)}


@each_kind
def test_a_journal_that_begins_nowhere_brings_nothing(features: int) -> None:
    assert brought(Crafted(features, start=0).content()) == {}


def test_a_journal_that_breaks_off_is_an_error() -> None:
    content = Crafted(0).blocks({5: filled(1)}).ends().content()
    for size in (0, 1, BLOCK - 1, BLOCK, 2 * BLOCK, len(content) - 1):
        with pytest.raises(ValueError, match=r"lie where it says|breaks off"):
            brought(content[:size])


def test_a_journal_of_blocks_of_another_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="no superblock"):
        Journal(Memory(Crafted(0).content()), 4096)


@pytest.mark.parametrize("features", [SUMS_2, SUMS_2 | WIDE, SUMS_3, SUMS_3 | WIDE])
@given(at=st.integers(0, BLOCK * 7 - 1), bit=st.integers(0, 7))
@settings(deadline=None, max_examples=100)
def test_with_checksums_a_flipped_bit_is_an_error_but_where_the_last_end_says_that_it_is_one(
    features: int, at: int, bit: int
) -> None:
    first, second = {5: filled(1)}, {6: filled(2)}
    made = Crafted(features).blocks(first).ends().blocks(second).ends()
    content = flipped(made.content(), at, 1 << bit)
    try:
        found = brought(content)
    except ValueError:
        return
    behind_the_header = at % BLOCK >= 64 and at // BLOCK in {3, 6}
    in_the_last_ends_header = at // BLOCK == 6 and at % BLOCK < 12
    assert (behind_the_header and found == first | second) or (in_the_last_ends_header and found == first)


def flipped(content: bytes, at: int, bits: int = 1) -> bytes:
    return content[:at] + bytes([content[at] ^ bits]) + content[at + 1 :]


SUMMED = pytest.mark.parametrize("features", [SUMS_2, SUMS_2 | WIDE, SUMS_3, SUMS_3 | WIDE])


@SUMMED
@pytest.mark.parametrize("what", ["describes", "revokes"])
def test_what_is_in_the_making_is_no_damage(features: int, what: str) -> None:
    made = Crafted(features).blocks({5: filled(1)}).ends()
    made = made.blocks({6: filled(2)}) if what == "describes" else made.revokes(5)
    assert brought(flipped(made.content(), 4 * BLOCK + 700)) == {5: filled(1)}
    with pytest.raises(ValueError, match="damaged"):
        brought(flipped(made.ends().content(), 4 * BLOCK + 700))


@SUMMED
def test_what_an_earlier_file_system_left_is_no_damage(features: int) -> None:
    made = Crafted(features, time=100).blocks({5: filled(1)}).ends()
    made.log.append(bytes(BLOCK))
    made.sequence, made.time = 9, 99
    assert brought(made.blocks({6: filled(2)}).ends().content()) == {5: filled(1)}
    made.time = 100
    with pytest.raises(ValueError, match="goes on"):
        brought(made.ends().content())


@SUMMED
def test_of_an_end_its_header_counts(features: int) -> None:
    content = Crafted(features).blocks({5: filled(1)}).ends().content()
    assert brought(flipped(content, 3 * BLOCK + 64)) == {5: filled(1)}


@each_kind
def test_a_block_that_revokes_more_than_has_room_in_it_is_an_error(features: int) -> None:
    made = Crafted(features).revokes(5)
    made.log[0] = made._summed(
        made.log[0][:12] + struct.pack(">I", BLOCK + 1) + made.log[0][16:-4], BLOCK - 4
    )
    assert brought(made.content()) == {}
    with pytest.raises(ValueError, match="revokes more"):
        brought(made.ends().content())


@each_kind
def test_a_transaction_that_leads_round_into_itself_is_an_error(features: int) -> None:
    made = Crafted(features, start=3)
    for number in range(BLOCKS - 1):
        made.revokes(number)
    with pytest.raises(ValueError, match="round into itself"):
        brought(made.content())


@each_kind
def test_a_journal_that_is_full_is_played(features: int) -> None:
    made = Crafted(features, start=9)
    for _ in range(BLOCKS - 4):
        made.ends()
    assert brought(made.blocks({5: filled(1)}).ends().content()) == {5: filled(1)}


@pytest.mark.parametrize(
    ("compatible", "features", "at", "value"),
    [(1, SUMS_3, 0, b""), (0, SUMS_2 | SUMS_3, 0, b""), (0, SUMS_3, 0x50, b"\1"), (0, 0, 0x2F, b"\1")],
    ids=["1 and 3", "2 and 3", "not CRC32C", "for writing"],
)
def test_what_jbd2_would_not_load_is_an_error(compatible: int, features: int, at: int, value: bytes) -> None:
    content = Crafted(features, compatible=compatible).blocks({5: filled(1)}).ends().content()
    with pytest.raises(ValueError, match=r"several|not known"):
        brought(content[:at] + value + content[at + len(value) :])


def crc32_be(data: bytes) -> int:
    """As the kernel's crc32_be_generic, a bit at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc >> 31 else 0)) & 0xFFFFFFFF
    return crc


def with_sums_1() -> Crafted:
    made = Crafted(WIDE, compatible=1)
    for number in (5, 6):
        begin = len(made.log)
        made.blocks({number: filled(number), number + 4: filled(number + 1)})
        total = crc32_be(b"".join(made.log[begin:]))
        made.ends()
        end = made.log[-1]
        made.log[-1] = end[:12] + b"\1\4\0\0" + struct.pack(">I", total) + end[20:]
    return made


def test_checksums_of_the_first_kind_fit_or_are_left_out() -> None:
    expected = {number: filled(one) for number, one in ((5, 5), (9, 6), (6, 6), (10, 7))}
    assert brought(with_sums_1().content()) == expected
    without = Crafted(WIDE, compatible=1).blocks({5: filled(5)}).ends()
    assert brought(without.content()) == {5: filled(5)}


@given(block=st.integers(1, 8), at=st.integers(12, BLOCK - 1), bit=st.integers(0, 7))
@settings(deadline=None, max_examples=200)
def test_with_checksums_of_the_first_kind_a_flipped_bit_is_an_error(block: int, at: int, bit: int) -> None:
    content = WITH_SUMS_1.content()
    is_end = block % 4 == 0
    damaged = flipped(content, block * BLOCK + at, 1 << bit)
    if is_end and not (at in {12, 13} or 16 <= at < 20):
        assert brought(damaged) == brought(content)
    else:
        try:
            found = brought(damaged)
        except ValueError:
            return
        assert block % 4 == 1, "only a descriptor that says how much there is makes what follows no end"
        assert found in ({}, {5: filled(5), 9: filled(6)})


WITH_SUMS_1 = with_sums_1()


def test_more_blocks_than_can_be_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Callable[[], Crafted]] = [
        lambda: Crafted(0).blocks({number: filled(number) for number in range(5)}).ends(),
        lambda: (
            Crafted(0).blocks({1: filled(1), 2: filled(2), 3: filled(3)}).ends().blocks({4: filled(4)}).ends()
        ),
        lambda: Crafted(0).revokes(*range(5)).ends(),
        lambda: Crafted(0).revokes(1, 2, 3).ends().revokes(4).ends(),
    ]
    assert [len(brought(one().content())) for one in made] == [5, 4, 0, 0]
    monkeypatch.setattr(jbd2, "MAX_BLOCKS", 3)
    for one in made:
        with pytest.raises(ValueError, match="more than can be"):
            brought(one().content())


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    made = Crafted(draw(st.sampled_from(ALL)), draw(st.integers(1, BLOCKS - 1)))
    made.blocks({5: filled(1), 9: filled(2)}).ends().revokes(5).blocks({6: filled(3)}).ends()
    content = bytearray(made.content())
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, BLOCKS - 1)) * BLOCK + draw(st.integers(0, 80))
        some = draw(st.binary(min_size=1, max_size=8))
        content[at : at + len(some)] = some
    if draw(st.booleans()):  # from there on anything, in blocks that say they are of the journal
        for number in range(draw(st.integers(1, BLOCKS - 1)), BLOCKS):
            head = struct.pack(">III", MAGIC, draw(st.sampled_from([1, 2, 3, 5])), draw(st.integers(7, 9)))
            content[number * BLOCK : number * BLOCK + 60] = head + draw(st.binary(min_size=48, max_size=48))
    return bytes(content)


@given(damaged())
@settings(deadline=None, max_examples=300)
def test_whatever_a_journal_has_it_ends(content: bytes) -> None:
    memory = Memory(content)
    try:
        log = Journal(memory, BLOCK)
        found = log.newest()
    except (OSError, ValueError):
        found = {}
    for place in found.values():
        assert len(log.content(place)) == BLOCK
    most_in_one = BLOCK // 8
    assert memory.reads <= 3 * (BLOCKS + most_in_one) + len(found) + 1


@given(
    blocks=st.dictionaries(st.integers(0, 16), st.integers(0, 255), max_size=6),
    where=st.lists(st.tuples(st.integers(0, 17 * BLOCK), st.integers(0, 6 * BLOCK)), min_size=1, max_size=20),
    size=st.integers(16 * BLOCK, 17 * BLOCK),
)
@settings(deadline=None, max_examples=150)
def test_what_is_read_is_of_the_disk_with_all_laid_over(
    blocks: dict[int, int], where: list[tuple[int, int]], size: int
) -> None:
    disk = bytes(random.Random(4).randbytes(size))
    made = Crafted(SUMS_3 | WIDE)
    if blocks:
        made.blocks({number: filled(content) for number, content in blocks.items()}).ends()
    whole = bytearray(disk)
    for number, content in blocks.items():
        whole[number * BLOCK : (number + 1) * BLOCK] = filled(content)
    log = Journal(Memory(made.content()), BLOCK)
    laid = Overlaid(Memory(disk), log, log.newest())
    assert laid.size == size
    for offset, length in where:
        assert laid.read(offset, length) == bytes(whole[:size])[offset : offset + length]
