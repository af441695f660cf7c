"""A journal (jbd2): what its transactions bring, as recovery has it.

Promise: transactions that are whole, in their order, without what was revoked since. What is not understood,
or fails its checksum, is an error. With checksums (2 and 3) so is an end with more transactions behind it.
Limit: fast commits and asynchronous ones are not understood.
Source: the kernel's Documentation/filesystems/ext4/journal.rst, and fs/jbd2/recovery.c.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import google_crc32c

from korora.adapters.filesystem.disk import Bytes

MAX_BLOCKS: Final = 1 << 19
"""Of the disk that one journal may bring: twice what the largest has that mkfs makes by itself."""
_U32, _U64 = struct.Struct(">I"), struct.Struct(">Q")
_MAGIC: Final = 0xC03B3998
_DESCRIPTOR, _COMMIT, _OLD_SUPERBLOCK, _SUPERBLOCK, _REVOKE = range(1, 6)
_HEADER: Final = struct.Struct(">III")
_HEAD: Final = struct.Struct(">IIIIIIIIIIII")
_SUPERBLOCK_BYTES: Final = 1024
_SUM_KIND, _CRC32C = 0x50, 4
_UUID, _UUID_BYTES, _SUPERBLOCK_SUM = 48, 16, 0xFC
_COMMIT_SUM_KIND, _COMMIT_SUM, _COMMIT_TIME, _COMMIT_BYTES = 12, 16, 48, 64
_NO_SUM, _CRC32 = b"\0\0", b"\1\4"
_HAS_SUMS_1: Final = 0x1  # of those that may be unknown
_HAS_REVOKES, _HAS_64BIT, _HAS_SUMS_2, _HAS_SUMS_3 = 0x1, 0x2, 0x8, 0x10
_KNOWN: Final = _HAS_REVOKES | _HAS_64BIT | _HAS_SUMS_2 | _HAS_SUMS_3
_ESCAPED, _SAME_UUID, _LAST = 0x1, 0x2, 0x8
_TAG, _TAG_3 = struct.Struct(">IHH"), struct.Struct(">IIII")
_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def is_empty(head: bytes) -> bool:
    """Of the journal with that superblock: nothing is to be played. ValueError where it is none."""
    if len(head) < _HEAD.size or _HEAD.unpack_from(head)[0] != _MAGIC:
        raise ValueError("it has no superblock that can be")
    return not _HEAD.unpack_from(head)[7]


@dataclass(slots=True)
class _Transaction:
    """As much of it as was read. Places are blocks of the journal; ~ one that is escaped."""

    tags: list[tuple[int, int, int]] = field(default_factory=list)  # block of the disk, place, checksum
    described: list[int] = field(default_factory=list)  # places: descriptors, and what they describe
    revokes: list[int] = field(default_factory=list)


class Journal:
    """ValueError for one that is none, or not understood."""

    def __init__(self, content: Bytes, block_bytes: int) -> None:
        self._content = content
        self.block_bytes = block_bytes
        head = content.read(0, _SUPERBLOCK_BYTES)
        if len(head) != _SUPERBLOCK_BYTES:
            raise ValueError("it breaks off")
        magic, kind, _, size, self._end, self._first, self._sequence, self._start, _, *features = (
            _HEAD.unpack_from(head)
        )
        if magic != _MAGIC or kind not in {_OLD_SUPERBLOCK, _SUPERBLOCK} or size != block_bytes:
            raise ValueError("it has no superblock that can be")
        self._set_features(head, *(features if kind == _SUPERBLOCK else (0, 0, 0)))
        if self._end * block_bytes > content.size or not 0 < self._first < self._end:
            raise ValueError("it does not lie where it says")
        if self._start and not self._first <= self._start < self._end:
            raise ValueError("it does not begin where it lies")

    def _set_features(self, head: bytes, may_be_unknown: int, features: int, for_writing: int) -> None:
        """As jbd2 would load it, which takes one kind of checksums at most."""
        self._features = features
        if unknown := self._features & ~_KNOWN or for_writing:
            raise ValueError(f"it has features that are not known: {unknown:#x}")
        self._has_sum_1 = bool(may_be_unknown & _HAS_SUMS_1)
        kinds = [self._has_sum_1, self._features & _HAS_SUMS_2, self._features & _HAS_SUMS_3]
        if sum(map(bool, kinds)) > 1:
            raise ValueError("it has several kinds of checksums")
        self._has_sums = any(kinds[1:])
        self._seed = _sum(0xFFFFFFFF, head[_UUID : _UUID + _UUID_BYTES])
        if not self._has_sums:
            return
        if head[_SUM_KIND] != _CRC32C:
            raise ValueError("it has checksums of a kind that is not known")
        if _sum_without(0xFFFFFFFF, head, _SUPERBLOCK_SUM) != _at(head, _SUPERBLOCK_SUM):
            raise ValueError("its superblock is damaged")

    @property
    def _tag_bytes(self) -> int:
        """As journal_tag_bytes in fs/jbd2/journal.c has it, with two bytes too many for the second kind."""
        if self._features & _HAS_SUMS_3:
            return _TAG_3.size
        more = 2 if self._features & _HAS_SUMS_2 else 0
        return _TAG.size + more + (_U32.size if self._features & _HAS_64BIT else 0)

    def newest(self) -> dict[int, int]:
        """Block of the disk → block of the journal that has its content, or ~ that where it is escaped."""
        found: dict[int, tuple[int, int]] = {}
        revoked: dict[int, int] = {}
        for number, one in enumerate(self._transactions()):
            found |= {block: (number, place) for block, place, _ in one.tags}
            for place in one.revokes:
                revoked |= dict.fromkeys(self._revoked(self._block(place)), number)
                _bounded(revoked)
            _bounded(found)
        return {block: place for block, (number, place) in found.items() if revoked.get(block, -1) < number}

    def content(self, place: int) -> bytes:
        """Of a block, as `newest` says where it is."""
        if place >= 0:
            return self._block(place)
        return _U32.pack(_MAGIC) + self._block(~place)[_U32.size :]

    def _transactions(self) -> Iterator[_Transaction]:
        """Those that are whole, checked."""
        if not self._start:
            return
        at, sequence, used, last_time = self._start, self._sequence, 0, 0
        one = _Transaction()
        while True:
            block, place = self._block(at), at
            magic, kind, number = _HEADER.unpack_from(block)
            if magic != _MAGIC or number != sequence or kind not in {_DESCRIPTOR, _COMMIT, _REVOKE}:
                break
            if used >= self._end - self._first:
                raise ValueError("it leads round into itself")
            at, used = self._after(at), used + 1
            if kind == _COMMIT:
                self._check(one, sequence, block)
                yield one
                one, sequence, last_time = _Transaction(), _next(sequence), _time(block)
            elif not self._is_whole(block):
                break  # it may be in the making
            elif kind == _REVOKE:
                one.revokes.append(place)
            else:
                one.described.append(place)
                for to, is_escaped, checksum in self._tags(block):
                    one.tags.append((to, ~at if is_escaped else at, checksum))
                    one.described.append(at)
                    at, used = self._after(at), used + 1
            _bounded(one.tags)
        self._expect_no_more(at, self._end - self._first - used, sequence, last_time)

    def _expect_no_more(self, at: int, count: int, sequence: int, last_time: int) -> None:
        """A later transaction that is whole was written after this one was. What an earlier file system left
        in the same place is older."""
        if not self._has_sums:
            return
        for _ in range(count):
            block = self._block(at)
            magic, kind, number = _HEADER.unpack_from(block)
            is_later = (number - sequence) & 0xFFFFFFFF < self._end and _time(block) >= last_time
            if magic == _MAGIC and kind == _COMMIT and is_later and self._is_end(block):
                raise ValueError("it is damaged: behind its end it goes on")
            at = self._after(at)

    def _tags(self, block: bytes) -> Iterator[tuple[int, bool, int]]:
        """Where a block goes, whether it is escaped, and its checksum."""
        at, end, flags = _HEADER.size, self._entries_end(block), 0
        while not flags & _LAST and at + self._tag_bytes <= end:
            if self._features & _HAS_SUMS_3:
                low, flags, high, checksum = _TAG_3.unpack_from(block, at)
            else:
                low, checksum, flags = _TAG.unpack_from(block, at)
                high = _at(block, at + _TAG.size) if self._features & _HAS_64BIT else 0
            at += self._tag_bytes + (0 if flags & _SAME_UUID else _UUID_BYTES)
            yield low | (high << 32 if self._features & _HAS_64BIT else 0), bool(flags & _ESCAPED), checksum

    def _revoked(self, block: bytes) -> list[int]:
        end = _at(block, _HEADER.size)
        if end > self._entries_end(block):
            raise ValueError("it revokes more than it says")
        each = _U64 if self._features & _HAS_64BIT else _U32
        return [each.unpack_from(block, at)[0] for at in range(16, end - each.size + 1, each.size)]

    def _entries_end(self, block: bytes) -> int:
        """Of a descriptor or what revokes."""
        return len(block) - (_U32.size if self._has_sums else 0)

    def _is_whole(self, block: bytes) -> bool:
        end = self._entries_end(block)
        return not self._has_sums or _sum_without(self._seed, block, end) == _at(block, end)

    def _is_end(self, block: bytes) -> bool:
        """What lies behind the header may be as it was before: so jbd2_commit_block_csum_verify_partial."""
        head = block[:_COMMIT_BYTES].ljust(len(block), b"\0")
        stated = _at(block, _COMMIT_SUM)
        return any(_sum_without(self._seed, one, _COMMIT_SUM) == stated for one in (block, head))

    def _check(self, one: _Transaction, sequence: int, end: bytes) -> None:
        """Only now that its end is there: before that it may be in the making."""
        if self._has_sum_1 and (stated := end[_COMMIT_SUM_KIND:][:8]) != bytes(8):
            total = 0
            for place in one.described:
                total = zlib.crc32(self._block(place).translate(_REVERSED), total)
            _expect(stated == _CRC32 + stated[2:4] + _U32.pack(_not_reversed(total)))
        if not self._has_sums:
            return
        _expect(self._is_end(end))
        begun, mask = _sum(self._seed, _U32.pack(sequence)), self._features & _HAS_SUMS_3
        for _, place, checksum in one.tags:
            found = _sum(begun, self._block(place if place >= 0 else ~place))
            _expect((found if mask else found & 0xFFFF) == checksum)

    def _block(self, number: int) -> bytes:
        block = self._content.read(number * self.block_bytes, self.block_bytes)
        if len(block) != self.block_bytes:
            raise ValueError("it breaks off")
        return block

    def _after(self, at: int) -> int:
        return self._first if at + 1 == self._end else at + 1


def _expect(fits: bool) -> None:
    if not fits:
        raise ValueError("it is damaged: a checksum does not fit")


def _bounded(some: dict[int, tuple[int, int]] | dict[int, int] | list[tuple[int, int, int]]) -> None:
    if len(some) > MAX_BLOCKS:
        raise ValueError("it has more than can be")


def _next(sequence: int) -> int:
    return (sequence + 1) & 0xFFFFFFFF


def _time(end: bytes) -> int:
    return int(_U64.unpack_from(end, _COMMIT_TIME)[0])


def _at(block: bytes, place: int) -> int:
    return int(_U32.unpack_from(block, place)[0])


def _sum(begun: int, data: bytes) -> int:
    """CRC32C as jbd2 goes on with it: not inverted in between."""
    return int(google_crc32c.extend(begun ^ 0xFFFFFFFF, data)) ^ 0xFFFFFFFF


def _sum_without(begun: int, block: bytes, place: int) -> int:
    """With zeros where the checksum itself stands."""
    return _sum(begun, block[:place] + bytes(_U32.size) + block[place + _U32.size :])


def _not_reversed(total: int) -> int:
    """CRC-32 with the highest bit first, of zlib's, which has the lowest first and is inverted in the end."""
    return int(f"{total ^ 0xFFFFFFFF:032b}"[::-1], 2)
