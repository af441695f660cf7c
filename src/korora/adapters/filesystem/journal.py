"""What ext3 and ext4 have in their journal alone (jbd2), laid over the disk as a mount would write it there.

Promise: transactions that are whole, in their order, without what was revoked since; nothing is written. What
is not understood or fails its checksum is an error, and then nothing is laid over.
Limit: a journal on another device, fast commits and asynchronous ones are not played.
Source: the kernel's Documentation/filesystems/ext4/journal.rst, and fs/jbd2/recovery.c.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, Final

import google_crc32c

from korora.adapters.filesystem.disk import Bytes

MAX_BLOCKS: Final = 1 << 19
"""Of the disk that one journal may bring: twice what the largest has that mkfs makes by itself."""
_EXT_SUPERBLOCK: Final = 1024
_U32, _U64 = struct.Struct(">I"), struct.Struct(">Q")
_INCOMPATIBLE, _INODE, _BLOCK = 0x60, 0xE0, 0x18
"""Of ext's superblock, in little-endian: features, the journal's inode, the size of blocks."""
_NEEDS_RECOVERY: Final = 0x4

_MAGIC: Final = 0xC03B3998
_DESCRIPTOR, _COMMIT, _OLD_SUPERBLOCK, _SUPERBLOCK, _REVOKE = range(1, 6)
_HEADER: Final = struct.Struct(">III")
_HEAD: Final = struct.Struct(">IIIIIIIIIIII")
_SUPERBLOCK_BYTES: Final = 1024
_UUID, _UUID_BYTES, _SUPERBLOCK_SUM, _COMMIT_SUM = 48, 16, 0xFC, 16
_HAS_REVOKES, _HAS_64BIT, _HAS_SUMS_2, _HAS_SUMS_3 = 0x1, 0x2, 0x8, 0x10
_KNOWN: Final = _HAS_REVOKES | _HAS_64BIT | _HAS_SUMS_2 | _HAS_SUMS_3
_ESCAPED, _SAME_UUID, _LAST = 0x1, 0x2, 0x8
_TAG, _TAG_3 = struct.Struct(">IHH"), struct.Struct(">IIII")


def played(part: Bytes, files: Any) -> Bytes | None:
    """The disk with its journal; None where there is nothing to play. `files`: the same disk, as The Sleuth
    Kit opened it. OSError or ValueError where it cannot be played.
    """
    head = part.read(_EXT_SUPERBLOCK, _EXT_SUPERBLOCK)
    (features,) = struct.unpack_from("<I", head, _INCOMPATIBLE)
    if not features & _NEEDS_RECOVERY:
        return None
    (inode,) = struct.unpack_from("<I", head, _INODE)
    if not inode:
        raise ValueError("it lies on another device")
    block_bytes = 1024 << min(struct.unpack_from("<I", head, _BLOCK)[0], 6)
    journal = Journal(_Content(files.open_meta(inode)), block_bytes)
    newest = journal.newest()
    if newest and (max(newest) + 1) * block_bytes > part.size:
        raise ValueError("it has blocks that are not of this disk")
    return Overlaid(part, journal, newest) if newest else None


class _Content:
    """Of the journal's inode."""

    def __init__(self, entry: Any) -> None:
        self._entry = entry
        self.size = int(entry.info.meta.size)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._entry.read_random(offset, length))


class Journal:
    """ValueError for one that is none, or not understood."""

    def __init__(self, content: Bytes, block_bytes: int) -> None:
        self._content = content
        self.block_bytes = block_bytes
        head = content.read(0, _SUPERBLOCK_BYTES)
        if len(head) != _SUPERBLOCK_BYTES:
            raise ValueError("it breaks off")
        magic, kind, _, size, self._end, self._first, self._sequence, self._start, _, _, features, _ = (
            _HEAD.unpack_from(head)
        )
        if magic != _MAGIC or kind not in {_OLD_SUPERBLOCK, _SUPERBLOCK} or size != block_bytes:
            raise ValueError("it has no superblock that can be")
        self._features = features if kind == _SUPERBLOCK else 0
        if self._features & ~_KNOWN:
            raise ValueError(f"it has features that are not known: {self._features & ~_KNOWN:#x}")
        if self._end * block_bytes > content.size or not 0 < self._first < self._end:
            raise ValueError("it does not lie where it says")
        if self._start and not self._first <= self._start < self._end:
            raise ValueError("it does not begin where it lies")
        self._has_sums = bool(self._features & (_HAS_SUMS_2 | _HAS_SUMS_3))
        self._seed = _sum(0xFFFFFFFF, head[_UUID : _UUID + _UUID_BYTES])
        if self._has_sums and _sum_without(0xFFFFFFFF, head, _SUPERBLOCK_SUM) != _at(head, _SUPERBLOCK_SUM):
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
        tags: list[tuple[int, int, int]] = []
        revoked: dict[int, int] = {}
        for number, (some, no_more) in enumerate(self._transactions()):
            tags += [(number, *tag) for tag in some]
            revoked |= dict.fromkeys(no_more, number)
            if max(len(tags), len(revoked)) > MAX_BLOCKS:
                raise ValueError("it has more than can be")
        return {block: place for number, block, place in tags if revoked.get(block, -1) < number}

    def content(self, place: int) -> bytes:
        """Of a block, as `newest` says where it is."""
        if place >= 0:
            return self._block(place)
        return _U32.pack(_MAGIC) + self._block(~place)[_U32.size :]

    def _transactions(self) -> Iterator[tuple[list[tuple[int, int]], list[int]]]:
        """Of each that is whole: blocks with their places, and what it revokes."""
        if not self._start:
            return
        at, sequence, used = self._start, self._sequence, 0
        tags: list[tuple[int, int]] = []
        sums: list[tuple[int, int]] = []
        revoked: list[int] = []
        while used < self._end - self._first:
            block = self._block(at)
            magic, kind, number = _HEADER.unpack_from(block)
            if magic != _MAGIC or number != sequence:
                return
            at, used = self._after(at), used + 1
            if kind == _DESCRIPTOR:
                for to, is_escaped, checksum in self._tags(block):
                    sums.append((at, checksum))
                    tags.append((to, ~at if is_escaped else at))
                    at, used = self._after(at), used + 1
            elif kind == _REVOKE:
                revoked += self._revoked(block)
            elif kind == _COMMIT:
                self._expect(_sum_without(self._seed, block, _COMMIT_SUM), _at(block, _COMMIT_SUM))
                for place, checksum in sums:  # only now: before its end it may be in the making
                    self._check(place, sequence, checksum)
                yield tags, revoked
                tags, sums, revoked, sequence = [], [], [], (sequence + 1) & 0xFFFFFFFF
            else:
                return
            if max(len(tags), len(revoked)) > MAX_BLOCKS:
                raise ValueError("it has more than can be")

    def _tags(self, block: bytes) -> Iterator[tuple[int, bool, int]]:
        """Where a block goes, whether it is escaped, and its checksum."""
        at, end, flags = _HEADER.size, self._checked_end(block), 0
        while not flags & _LAST and at + self._tag_bytes <= end:
            if self._features & _HAS_SUMS_3:
                low, flags, high, checksum = _TAG_3.unpack_from(block, at)
            else:
                low, checksum, flags = _TAG.unpack_from(block, at)
                high = _at(block, at + _TAG.size) if self._features & _HAS_64BIT else 0
            at += self._tag_bytes + (0 if flags & _SAME_UUID else _UUID_BYTES)
            yield low | (high << 32 if self._features & _HAS_64BIT else 0), bool(flags & _ESCAPED), checksum

    def _revoked(self, block: bytes) -> list[int]:
        end = min(_at(block, _HEADER.size), self._checked_end(block))
        each = _U64 if self._features & _HAS_64BIT else _U32
        return [each.unpack_from(block, at)[0] for at in range(16, end - each.size + 1, each.size)]

    def _checked_end(self, block: bytes) -> int:
        """Where the entries of this block end at the latest."""
        if not self._has_sums:
            return len(block)
        end = len(block) - _U32.size
        self._expect(_sum_without(self._seed, block, end), _at(block, end))
        return end

    def _check(self, at: int, sequence: int, checksum: int) -> None:
        if self._has_sums:
            found = _sum(_sum(self._seed, _U32.pack(sequence)), self._block(at))
            self._expect(found if self._features & _HAS_SUMS_3 else found & 0xFFFF, checksum)

    def _expect(self, found: int, stated: int) -> None:
        if self._has_sums and found != stated:
            raise ValueError("it is damaged: a checksum does not fit")

    def _block(self, number: int) -> bytes:
        block = self._content.read(number * self.block_bytes, self.block_bytes)
        if len(block) != self.block_bytes:
            raise ValueError("it breaks off")
        return block

    def _after(self, at: int) -> int:
        return self._first if at + 1 == self._end else at + 1


class Overlaid:
    """A disk with what its journal brings."""

    def __init__(self, of: Bytes, journal: Journal, newest: dict[int, int]) -> None:
        self._of = of
        self._journal = journal
        self._newest = newest
        self._blocks = sorted(newest)
        self.size = of.size

    def read(self, offset: int, length: int) -> bytes:
        found = self._of.read(offset, length)
        size, end = self._journal.block_bytes, offset + len(found)
        first = bisect_left(self._blocks, offset // size)
        if not found or first == len(self._blocks) or self._blocks[first] * size >= end:
            return found
        data = bytearray(found)
        for number in self._blocks[first : bisect_left(self._blocks, -(-end // size))]:
            content, begin = self._journal.content(self._newest[number]), number * size
            there, until = max(begin, offset), min(begin + size, end)
            data[there - offset : until - offset] = content[there - begin : until - begin]
        return bytes(data)


def _at(block: bytes, place: int) -> int:
    return int(_U32.unpack_from(block, place)[0])


def _sum(begun: int, data: bytes) -> int:
    """CRC32C as jbd2 goes on with it: not inverted in between."""
    return int(google_crc32c.extend(begun ^ 0xFFFFFFFF, data)) ^ 0xFFFFFFFF


def _sum_without(begun: int, block: bytes, place: int) -> int:
    """With zeros where the checksum itself stands."""
    return _sum(begun, block[:place] + bytes(_U32.size) + block[place + _U32.size :])
