"""Extended attributes of ext2 to ext4, as they lie in an inode, or in a block that it names.

Promise: all names, and all bytes of their values, or a ValueError. Limit: a value in an inode of its own
(ea_inode) is not read, and is one.
Source: the kernel's Documentation/filesystems/ext4, "Extended Attributes".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

MAGIC: Final = b"\x00\x00\x02\xea"
_IN_A_BLOCK: Final = 32
_ENTRY: Final = struct.Struct("<BBHIII")
_PREFIXES: Final = {
    0: "",
    1: "user.",
    2: "system.posix_acl_access",
    3: "system.posix_acl_default",
    4: "trusted.",
    6: "security.",
    7: "system.",
    8: "system.richacl",
}


def in_inode(inode: bytes, at: int) -> Iterator[tuple[str, bytes]]:
    """Those behind the inode's own fields, which end at `at`."""
    if inode.startswith(MAGIC, at):
        first = at + len(MAGIC)
        yield from _from(inode, first, first)


def in_block(block: bytes) -> Iterator[tuple[str, bytes]]:
    if not block.startswith(MAGIC):
        raise ValueError("the block of its attributes is none")
    yield from _from(block, _IN_A_BLOCK, 0)


def _from(area: bytes, at: int, base: int) -> Iterator[tuple[str, bytes]]:
    """`base`: where the places of values are counted from."""
    while (head := area[at : at + 4]) != bytes(4):
        if len(head) < 4 or at + _ENTRY.size > len(area):
            raise ValueError("its attributes have no end")
        length, kind, place, apart, size, _ = _ENTRY.unpack_from(area, at)
        name = area[at + _ENTRY.size : at + _ENTRY.size + length]
        begin = base + place
        if apart:
            raise ValueError("an attribute's value lies in an inode of its own, and is not read")
        if kind not in _PREFIXES or len(name) < length or begin + size > len(area):
            raise ValueError("an attribute is none")
        yield _PREFIXES[kind] + name.decode(), area[begin : begin + size]
        at += (_ENTRY.size + length + 3) & ~3
