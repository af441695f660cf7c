"""The inodes of ext2 to ext4 as they lie on the disk: what is asked of each file, and no library tells soon.

Limit: where the descriptors of groups are spread over the disk (meta_bg) they are not found, and that is
said.
Source: the kernel's Documentation/filesystems/ext4.
"""

from __future__ import annotations

import struct
from typing import Final

from korora.adapters.filesystem.attributes import in_block, in_inode
from korora.adapters.filesystem.disk import Bytes

_SUPERBLOCK: Final = 1024
_U32, _U16 = struct.Struct("<I"), struct.Struct("<H")
_HAS_META_BG, _HAS_64BIT = 0x10, 0x80
_SHORT_DESCRIPTOR, _LONG_DESCRIPTOR = 32, 64
_OLD_INODE: Final = 128
_LARGEST_INODE: Final = 1 << 16
_FLAGS, _ACL_BLOCK, _ACL_BLOCK_HIGH, _EXTRA_BYTES = 0x20, 0x68, 0x76, 0x80


class Inodes:
    """Of a volume that has ext's superblock. `features`: those that a reader must know. `found`: whether it
    is known where they lie.
    """

    def __init__(self, part: Bytes) -> None:
        head = part.read(_SUPERBLOCK, _SUPERBLOCK)
        (self.features,) = _U32.unpack_from(head, 0x60)
        self.found = not self.features & _HAS_META_BG
        self._part = part
        self._block = 1024 << min(_U32.unpack_from(head, 0x18)[0], 6)
        self._first = _U32.unpack_from(head, 0x14)[0] + 1
        self._in_a_group = _U32.unpack_from(head, 0x28)[0]
        (revision,) = _U32.unpack_from(head, 0x4C)
        self._bytes = _U16.unpack_from(head, 0x58)[0] if revision else _OLD_INODE
        is_long = self.features & _HAS_64BIT
        self._descriptor = _U16.unpack_from(head, 0xFE)[0] if is_long else _SHORT_DESCRIPTOR
        self._group, self._table = -1, 0

    def flags(self, inode: int) -> int:
        """OSError or ValueError when that cannot be known."""
        return int(_U32.unpack_from(self._raw(inode), _FLAGS)[0])

    def attributes(self, inode: int) -> dict[str, bytes]:
        """Extended ones. OSError or ValueError, as above, or where they are none."""
        raw = self._raw(inode)
        (block,) = _U32.unpack_from(raw, _ACL_BLOCK)
        if self.features & _HAS_64BIT:
            block |= _U16.unpack_from(raw, _ACL_BLOCK_HIGH)[0] << 32
        found: dict[str, bytes] = {}
        if len(raw) > _OLD_INODE:
            found.update(in_inode(raw, _OLD_INODE + _U16.unpack_from(raw, _EXTRA_BYTES)[0]))
        if block:
            found.update(in_block(self._exactly(block * self._block, self._block)))
        return found

    def _raw(self, inode: int) -> bytes:
        if not self.found or not self._in_a_group or self._descriptor < _SHORT_DESCRIPTOR or inode < 1:
            raise ValueError("where its inode lies cannot be known")
        if not _OLD_INODE <= self._bytes <= _LARGEST_INODE or self._bytes & (self._bytes - 1):
            raise ValueError("its inode is of no size that can be")
        group, number = divmod(inode - 1, self._in_a_group)
        if group != self._group:
            self._group, self._table = group, self._table_of(group)
        return self._exactly(self._table * self._block + number * self._bytes, self._bytes)

    def _table_of(self, group: int) -> int:
        descriptor = self._exactly(self._first * self._block + group * self._descriptor, self._descriptor)
        (table,) = _U32.unpack_from(descriptor, 8)
        if self._descriptor >= _LONG_DESCRIPTOR:
            table |= _U32.unpack_from(descriptor, 0x28)[0] << 32
        return int(table)

    def _exactly(self, offset: int, length: int) -> bytes:
        found = self._part.read(offset, length)
        if len(found) != length:
            raise OSError("its inode lies beyond the end")
        return found
