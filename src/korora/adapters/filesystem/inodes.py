"""The inodes of ext2 to ext4 as they lie on the disk: what is asked of each file, and no library tells soon.

Source: the kernel's Documentation/filesystems/ext4, and descriptor_loc in its fs/ext4/super.c.
"""

from __future__ import annotations

import struct
from typing import Final

from korora.adapters.filesystem.attributes import in_block, in_inode
from korora.adapters.filesystem.disk import Bytes

_SUPERBLOCK: Final = 1024
_U32, _U16 = struct.Struct("<I"), struct.Struct("<H")
_HAS_META_BG, _HAS_64BIT = 0x10, 0x80
_SPARSE_SUPER, _SPARSE_SUPER_2 = 0x1, 0x200
_SHORT_DESCRIPTOR, _LONG_DESCRIPTOR = 32, 64
_OLD_INODE: Final = 128
_LARGEST_INODE: Final = 1 << 16
_MAP, _MAP_BYTES = 0x28, 60
_SIZE, _SIZE_HIGH = 0x04, 0x6C
_FLAGS, _ACL_BLOCK, _ACL_BLOCK_HIGH, _EXTRA_BYTES = 0x20, 0x68, 0x76, 0x80


class Inodes:
    """Of a volume that has ext's superblock. `features`: those that a reader must know."""

    def __init__(self, part: Bytes) -> None:
        head = part.read(_SUPERBLOCK, _SUPERBLOCK)
        (self.features,) = _U32.unpack_from(head, 0x60)
        self._part = part
        self._block = 1024 << min(_U32.unpack_from(head, 0x18)[0], 6)
        (self._first,) = _U32.unpack_from(head, 0x14)
        (self._blocks_of_a_group,) = _U32.unpack_from(head, 0x20)
        self._spread = _U32.unpack_from(head, 0x104)[0] if self.features & _HAS_META_BG else None
        self._sparse = bool(_U32.unpack_from(head, 0x64)[0] & _SPARSE_SUPER)
        is_second = bool(_U32.unpack_from(head, 0x5C)[0] & _SPARSE_SUPER_2)
        self._backups = struct.unpack_from("<II", head, 0x24C) if is_second else None
        self._in_a_group = _U32.unpack_from(head, 0x28)[0]
        (revision,) = _U32.unpack_from(head, 0x4C)
        self._bytes = _U16.unpack_from(head, 0x58)[0] if revision else _OLD_INODE
        is_long = self.features & _HAS_64BIT
        self._descriptor = _U16.unpack_from(head, 0xFE)[0] if is_long else _SHORT_DESCRIPTOR
        self._group, self._table = -1, 0

    def flags(self, inode: int) -> int:
        """OSError or ValueError when that cannot be known."""
        return int(_U32.unpack_from(self._raw(inode), _FLAGS)[0])

    def size(self, inode: int) -> int:
        """Of a file, in bytes. Errors as above."""
        raw = self._raw(inode)
        return int(_U32.unpack_from(raw, _SIZE)[0] | _U32.unpack_from(raw, _SIZE_HIGH)[0] << 32)

    def is_apart(self, inode: int) -> bool:
        """Whether the descriptor of its group is not in the table behind the superblock (meta_bg)."""
        if self._spread is None or not self._in_a_group or not self._descriptor:
            return False
        group = (inode - 1) // self._in_a_group
        return self._described(group) != self._in_one_table(group)

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

    def inline(self, inode: int) -> list[bytes]:
        """Of a folder in its inode, the areas where its names lie. OSError or ValueError, as above."""
        begin = self._raw(inode)[_MAP : _MAP + _MAP_BYTES]
        more = self.attributes(inode).get("system.data", b"")
        return [area for area in (begin[_U32.size :], more) if area]

    def _raw(self, inode: int) -> bytes:
        if not self._in_a_group or self._descriptor < _SHORT_DESCRIPTOR or inode < 1:
            raise ValueError("where its inode lies cannot be known")
        if not _OLD_INODE <= self._bytes <= _LARGEST_INODE or self._bytes & (self._bytes - 1):
            raise ValueError("its inode is of no size that can be")
        group, number = divmod(inode - 1, self._in_a_group)
        if group != self._group:
            self._group, self._table = group, self._table_of(group)
        return self._exactly(self._table * self._block + number * self._bytes, self._bytes)

    def _table_of(self, group: int) -> int:
        descriptor = self._exactly(self._described(group), self._descriptor)
        (table,) = _U32.unpack_from(descriptor, 8)
        if self._descriptor >= _LONG_DESCRIPTOR:
            table |= _U32.unpack_from(descriptor, 0x28)[0] << 32
        return int(table)

    def _described(self, group: int) -> int:
        """Where its descriptor lies: in the table behind the superblock, or, of those that are spread over
        the disk (meta_bg), in the first of the groups that share a block of descriptors.
        """
        in_a_block = self._block // self._descriptor
        number, within = divmod(group, in_a_block) if in_a_block else (0, group)
        if self._spread is None or number < self._spread:
            return self._in_one_table(group)
        of = number * in_a_block
        # With blocks of 1 KiB that are counted from 0, the superblock is in the second.
        before = self._has_superblock(of) + (self._block == _SUPERBLOCK and not (of or self._first))
        begin = self._first + of * self._blocks_of_a_group + before
        return int(begin * self._block + within * self._descriptor)

    def _in_one_table(self, group: int) -> int:
        return int((self._first + 1) * self._block + group * self._descriptor)

    def _has_superblock(self, group: int) -> bool:
        if self._backups is not None:
            return group == 0 or group in self._backups
        return group <= 1 or not self._sparse or any(_is_power(group, base) for base in (3, 5, 7))

    def _exactly(self, offset: int, length: int) -> bytes:
        found = self._part.read(offset, length)
        if len(found) != length:
            raise OSError("its inode lies beyond the end")
        return found


def _is_power(number: int, base: int) -> bool:
    while number % base == 0:
        number //= base
    return number == 1
