"""Whether something lies in XFS's log alone. It is not played: of whatever is in it, nothing is known.

Promise: a log is called clean only if its last record says that the file system was unmounted.
Source: XFS Algorithms & Data Structures, "Journaling Log"; xlog_find_head and xlog_check_unmount_rec in the
kernel's fs/xfs/xfs_log_recover.c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from korora.adapters.filesystem.disk import Bytes

BLOCK_BYTES: Final = 512
"""XFS's basic blocks, of which each of the log begins with the number of the cycle that it was written in."""
_MAGIC: Final = 0xFEEDBABE
_U32: Final = struct.Struct(">I")
_CYCLE, _VERSION, _LENGTH, _OPERATIONS, _SIZE = 4, 8, 12, 40, 320
_FLAGS, _UNMOUNT = 9, 0x20
_HEADER_COVERS: Final = 32 << 10
_LONGEST_RECORD: Final = (256 << 10) // BLOCK_BYTES + 16


@dataclass(frozen=True, slots=True)
class Log:
    """`place` and `blocks` (basic ones) of one that lies on the same device. Its methods raise OSError."""

    part: Bytes
    place: int
    blocks: int

    def is_clean(self) -> bool:
        head = self._head()
        if head is None:
            return False
        for back in range(1, min(_LONGEST_RECORD, self.blocks) + 1):
            at = (head - back) % self.blocks
            block = self._block(at)
            if _at(block, 0) == _MAGIC:
                return back == self._record_blocks(block) and self._says_unmounted(at, block)
        return False

    def _head(self) -> int | None:
        """Behind what was written last, where the cycle before goes on; None where that is unclear."""
        first, last = self._cycle(0), self._cycle(self.blocks - 1)
        if not first or last not in {first, first - 1, 0}:
            return None
        low, high = 0, self.blocks if first == last else self.blocks - 1
        while first != last and high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._cycle(middle) == first else (low, middle)
        return high % self.blocks

    def _says_unmounted(self, at: int, header: bytes) -> bool:
        operation = self._block((at + _header_blocks(header)) % self.blocks)
        return _at(header, _OPERATIONS) == 1 and bool(operation[_FLAGS] & _UNMOUNT)

    def _record_blocks(self, header: bytes) -> int:
        return _header_blocks(header) + -(-_at(header, _LENGTH) // BLOCK_BYTES)

    def _cycle(self, number: int) -> int:
        block = self._block(number)
        return _at(block, _CYCLE if _at(block, 0) == _MAGIC else 0)

    def _block(self, number: int) -> bytes:
        block = self.part.read(self.place + number * BLOCK_BYTES, BLOCK_BYTES)
        if len(block) != BLOCK_BYTES:
            raise OSError("its log reaches beyond the end")
        return block


def _header_blocks(header: bytes) -> int:
    return max(1, -(-_at(header, _SIZE) // _HEADER_COVERS)) if _at(header, _VERSION) & 2 else 1


def _at(block: bytes, place: int) -> int:
    return int(_U32.unpack_from(block, place)[0])
