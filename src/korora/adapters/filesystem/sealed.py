"""Which inodes of ext4 hold what nobody can read here: encrypted (fscrypt) or compressed (e2compr) ones.

Promise: nothing is read for a file system that says that it has neither. Limit: where its descriptors of
groups are spread over the disk (meta_bg) that is not known, and said.
Source: the kernel's Documentation/filesystems/ext4.
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
_SHORT_DESCRIPTOR, _LONG_DESCRIPTOR = 32, 64
_OLD_INODE: Final = 128


class Sealed:
    """Of a volume that has ext's superblock."""

    def __init__(self, part: Bytes) -> None:
        head = part.read(_SUPERBLOCK, _SUPERBLOCK)
        (features,) = _U32.unpack_from(head, 0x60)
        self._none = not features & (_HAS_COMPRESSED | _HAS_ENCRYPTED)
        self._unknown = bool(features & _HAS_META_BG)
        self._part = part
        self._block = 1024 << min(_U32.unpack_from(head, 0x18)[0], 6)
        self._first = _U32.unpack_from(head, 0x14)[0] + 1
        self._in_a_group = _U32.unpack_from(head, 0x28)[0]
        (revision,) = _U32.unpack_from(head, 0x4C)
        self._inode = _U16.unpack_from(head, 0x58)[0] if revision else _OLD_INODE
        self._descriptor = _U16.unpack_from(head, 0xFE)[0] if features & _HAS_64BIT else _SHORT_DESCRIPTOR

    def why(self, inode: int) -> str:
        """Why its content, its target or the names in it cannot be read; "" when nothing is known against it.

        OSError or ValueError when that cannot be known.
        """
        if self._none:
            return ""
        flags = self._flags(inode)
        return ENCRYPTED if flags & _IS_ENCRYPTED else _COMPRESSED if flags & _IS_COMPRESSED else ""

    def _flags(self, inode: int) -> int:
        if self._unknown or not self._in_a_group or self._descriptor < _SHORT_DESCRIPTOR or inode < 1:
            raise ValueError("whether it is encrypted cannot be known")
        group, number = divmod(inode - 1, self._in_a_group)
        descriptor = self._exactly(self._first * self._block + group * self._descriptor, self._descriptor)
        (table,) = _U32.unpack_from(descriptor, 8)
        if self._descriptor >= _LONG_DESCRIPTOR:
            table |= _U32.unpack_from(descriptor, 0x28)[0] << 32
        found = self._exactly(table * self._block + number * self._inode + 0x20, _U32.size)
        (flags,) = _U32.unpack(found)
        return int(flags)

    def _exactly(self, offset: int, length: int) -> bytes:
        found = self._part.read(offset, length)
        if len(found) != length:
            raise OSError("its inode lies beyond the end")
        return found
