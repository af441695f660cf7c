"""What ext3 and ext4 have in their journal alone (jbd2), laid over the disk as a mount would write it there.

Promise: all of it that counts, or an error, and then nothing is laid over; nothing is written.
Limit: a journal on another device, fast commits and asynchronous ones are not played.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from typing import Any, Final

import pytsk3

from korora.adapters.filesystem.disk import Bytes
from korora.adapters.filesystem.inodes import Inodes
from korora.adapters.filesystem.jbd2 import Journal, is_empty

_EXT_SUPERBLOCK: Final = 1024
_FEATURES, _INODE, _BLOCK = 0x5C, 0xE0, 0x18
"""Of ext's superblock, in little-endian: features, the journal's inode, the size of blocks."""
_HAS_JOURNAL, _NEEDS_RECOVERY = 0x4, 0x4
_MOST_BLOCKS: Final = 10_240_000
"""That mkfs gives to a journal."""
_NOWHERE: Final = int(pytsk3.TSK_FS_ATTR_RUN_FLAG_FILLER) | int(pytsk3.TSK_FS_ATTR_RUN_FLAG_SPARSE)


def played(part: Bytes, files: Any) -> Bytes | None:
    """The disk with its journal; None where there is nothing to play. `files`: the same disk, as The Sleuth
    Kit opened it. OSError or ValueError where it cannot be played.
    """
    head = part.read(_EXT_SUPERBLOCK, _EXT_SUPERBLOCK)
    features, more = struct.unpack_from("<II", head, _FEATURES)
    needs_recovery = bool(more & _NEEDS_RECOVERY)
    if not features & _HAS_JOURNAL:
        if needs_recovery:
            raise ValueError("it should be played, and there is none")
        return None
    (inode,) = struct.unpack_from("<I", head, _INODE)
    if not inode:
        if needs_recovery:
            raise ValueError("it lies on another device")
        return None
    block_bytes = 1024 << min(struct.unpack_from("<I", head, _BLOCK)[0], 6)
    if Inodes(part).size(inode) > min(_MOST_BLOCKS * block_bytes, part.size):  # its holes would take hours
        raise ValueError("it is larger than can be")
    content = _Content(files.open_meta(inode), block_bytes)
    if not needs_recovery:  # then a mount would leave it out, and e2fsck would play it
        if not is_empty(content.read(0, 1024)):
            raise ValueError("it has something, and the file system says that it has not")
        return None
    journal = Journal(content, block_bytes)
    newest = journal.newest()
    if newest and (max(newest) + 1) * block_bytes > part.size:
        raise ValueError("it has blocks that are not of this disk")
    if any(map(content.lies_in, newest)):
        raise ValueError("it would write over itself")
    return Overlaid(part, journal, newest) if newest else None


class _Content:
    """Of the journal's inode. ValueError where it has holes."""

    def __init__(self, entry: Any, block_bytes: int) -> None:
        self._entry = entry
        self.size = int(entry.info.meta.size)
        data = next((one for one in entry if one.info.type == pytsk3.TSK_FS_ATTR_TYPE_DEFAULT), ())
        blocks = -(-self.size // block_bytes)
        runs = [run for run in data if int(run.offset) < blocks]
        if any(int(run.flags) & _NOWHERE for run in runs) or sum(int(run.len) for run in runs) < blocks:
            raise ValueError("it has holes")
        self._runs = sorted((int(run.addr), int(run.addr) + int(run.len)) for run in runs)
        self._starts = [start for start, _ in self._runs]

    def lies_in(self, block: int) -> bool:
        at = bisect_right(self._starts, block) - 1
        return at >= 0 and block < self._runs[at][1]

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._entry.read_random(offset, length))


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
