"""Which inodes of ext4 hold what nobody can read here: encrypted (fscrypt) or compressed (e2compr) ones.

Promise: nothing is read for a file system that says that it has neither. Of groups whose descriptors are not
in one table (meta_bg) The Sleuth Kit reads another inode, so what lies there is a problem.
Source: the kernel's Documentation/filesystems/ext4.
"""

from __future__ import annotations

from typing import Final

from korora.adapters.filesystem.inodes import Inodes

ENCRYPTED: Final = "it is encrypted (fscrypt)"
_COMPRESSED: Final = "it is compressed (e2compr)"
_HAS_COMPRESSED, _HAS_ENCRYPTED = 0x1, 0x10000
_IS_COMPRESSED, _IS_ENCRYPTED = 0x4, 0x800


class Sealed:
    """Of a volume with these inodes."""

    def __init__(self, inodes: Inodes) -> None:
        self._inodes = inodes
        self._none = not inodes.features & (_HAS_COMPRESSED | _HAS_ENCRYPTED)

    def why(self, inode: int) -> str:
        """Why its content, its target or the names in it cannot be read; "" when nothing is known against it.

        OSError or ValueError when that cannot be known.
        """
        if self._inodes.is_apart(inode):
            raise ValueError("its inode lies where the reader does not look for it (meta_bg)")
        if self._none:
            return ""
        flags = self._inodes.flags(inode)
        return ENCRYPTED if flags & _IS_ENCRYPTED else _COMPRESSED if flags & _IS_COMPRESSED else ""
