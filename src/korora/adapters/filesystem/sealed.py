"""Which inodes of ext4 hold what nobody can read here: encrypted (fscrypt) or compressed (e2compr) ones.

Promise: nothing is read for a file system that says that it has neither. Of groups whose descriptors are not
in one table (meta_bg) The Sleuth Kit reads another inode, so what lies there is a problem.
Source: the kernel's Documentation/filesystems/ext4, and descriptor_loc in its fs/ext4/super.c.
"""

from __future__ import annotations

import struct
from typing import Final

from korora.adapters.filesystem.disk import Bytes

ENCRYPTED: Final = "it is encrypted (fscrypt)"
_COMPRESSED: Final = "it is compressed (e2compr)"
_SUPERBLOCK: Final = 1024
_U32, _U16 = struct.Struct("<I"), struct.Struct("<H")
_HAS_COMPRESSED, _HAS_META_BG, _HAS_64BIT, _HAS_ENCRYPTED = 0x1, 0x10, 0x80, 0x10000
_IS_COMPRESSED, _IS_ENCRYPTED = 0x4, 0x800
_SPARSE_SUPER, _SPARSE_SUPER_2 = 0x1, 0x200
_SHORT_DESCRIPTOR, _LONG_DESCRIPTOR = 32, 64
_OLD_INODE: Final = 128


class Sealed:
    """Of a volume that has ext's superblock."""

    def __init__(self, part: Bytes) -> None:
        head = part.read(_SUPERBLOCK, _SUPERBLOCK)
        (features,) = _U32.unpack_from(head, 0x60)
        self._none = not features & (_HAS_COMPRESSED | _HAS_ENCRYPTED)
        self._part = part
        self._block = 1024 << min(_U32.unpack_from(head, 0x18)[0], 6)
        (self._first,) = _U32.unpack_from(head, 0x14)
        (self._group,) = _U32.unpack_from(head, 0x20)
        self._spread = _U32.unpack_from(head, 0x104)[0] if features & _HAS_META_BG else None
        self._sparse = bool(_U32.unpack_from(head, 0x64)[0] & _SPARSE_SUPER)
        is_second = bool(_U32.unpack_from(head, 0x5C)[0] & _SPARSE_SUPER_2)
        self._backups = struct.unpack_from("<II", head, 0x24C) if is_second else None
        self._in_a_group = _U32.unpack_from(head, 0x28)[0]
        (revision,) = _U32.unpack_from(head, 0x4C)
        self._inode = _U16.unpack_from(head, 0x58)[0] if revision else _OLD_INODE
        self._descriptor = _U16.unpack_from(head, 0xFE)[0] if features & _HAS_64BIT else _SHORT_DESCRIPTOR

    def why(self, inode: int) -> str:
        """Why its content, its target or the names in it cannot be read; "" when nothing is known against it.

        OSError or ValueError when that cannot be known.
        """
        if self._spread is not None and self._in_a_group and self._descriptor:
            group = (inode - 1) // self._in_a_group
            if self._described(group) != self._in_one_table(group):
                raise ValueError("its inode lies where the reader does not look for it (meta_bg)")
        if self._none:
            return ""
        flags = self._flags(inode)
        return ENCRYPTED if flags & _IS_ENCRYPTED else _COMPRESSED if flags & _IS_COMPRESSED else ""

    def _flags(self, inode: int) -> int:
        if not self._in_a_group or self._descriptor < _SHORT_DESCRIPTOR or inode < 1:
            raise ValueError("whether it is encrypted cannot be known")
        group, number = divmod(inode - 1, self._in_a_group)
        descriptor = self._exactly(self._described(group), self._descriptor)
        (table,) = _U32.unpack_from(descriptor, 8)
        if self._descriptor >= _LONG_DESCRIPTOR:
            table |= _U32.unpack_from(descriptor, 0x28)[0] << 32
        found = self._exactly(table * self._block + number * self._inode + 0x20, _U32.size)
        (flags,) = _U32.unpack(found)
        return int(flags)

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
        return int((self._first + of * self._group + before) * self._block + within * self._descriptor)

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
