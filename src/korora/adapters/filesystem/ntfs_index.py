"""How many names a folder of NTFS has in its index, whatever a reader made of it.

The Sleuth Kit passes over a block of an index that is damaged, and says nothing of the names in it. Here the
blocks that are in use are read, and must be whole. Names that are there for DOS alone do not count.
Source: Linux-NTFS, "NTFS Documentation": $INDEX_ROOT, $INDEX_ALLOCATION, $FILE_NAME.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

import pytsk3

from korora.adapters.filesystem.folders import ITSELF

_ROOT: Final = pytsk3.TSK_FS_ATTR_TYPE_NTFS_IDXROOT
_BLOCKS: Final = pytsk3.TSK_FS_ATTR_TYPE_NTFS_IDXALLOC
_USED: Final = pytsk3.TSK_FS_ATTR_TYPE_NTFS_BITMAP
_OF_NAMES: Final = b"$I30"
_SECTOR: Final = 512
_ROOT_HEAD, _BLOCK_HEAD = 16, 24
_NODE, _ENTRY = struct.Struct("<II"), struct.Struct("<QHHI")
_LAST, _FOR_DOS = 2, 2
_NAME_LENGTH, _NAME_KIND, _NAME_TEXT = 0x40, 0x41, 0x42
_BLOCK_SIZES: Final = {512, 1024, 2048, 4096, 8192, 16384, 32768, 65536}
MAX_BLOCKS: Final = 1 << 20


def names_in(folder: Any) -> int:
    """Beside `.`. ValueError where the index is not whole, OSError where it cannot be read."""
    try:
        return sum(1 for node in _nodes(folder) for name in _names(node) if name not in ITSELF)
    except (struct.error, IndexError) as error:
        raise ValueError("its index of names breaks off") from error


def _nodes(folder: Any) -> Iterator[bytes]:
    """Each from its header on."""
    parts = {one.info.type: one for one in folder if bytes(one.info.name or b"") == _OF_NAMES}
    if _ROOT not in parts:
        raise ValueError("it has no index of names")
    root = _read(folder, parts[_ROOT], 0, int(parts[_ROOT].info.size))
    yield root[_ROOT_HEAD:]
    if _BLOCKS not in parts:
        return
    (size,) = struct.unpack_from("<I", root, 8)
    count = int(parts[_BLOCKS].info.size) // size if size in _BLOCK_SIZES else MAX_BLOCKS + 1
    if count > MAX_BLOCKS or _USED not in parts:
        raise ValueError("its index of names is of no size that can be")
    used = _read(folder, parts[_USED], 0, min(int(parts[_USED].info.size), -(-count // 8)))
    for number in range(min(count, 8 * len(used))):
        if used[number // 8] >> number % 8 & 1:
            yield _whole(_read(folder, parts[_BLOCKS], number * size, size))[_BLOCK_HEAD:]


def _read(folder: Any, part: Any, offset: int, length: int) -> bytes:
    return bytes(folder.read_random(offset, length, part.info.type, int(part.info.id)))


def _whole(block: bytes) -> bytes:
    """With the ends of its sectors put back."""
    found = bytearray(block)
    offset, count = struct.unpack_from("<HH", found, 4)
    if found[:4] != b"INDX" or count != len(found) // _SECTOR + 1:
        raise ValueError("a block of its index of names is damaged")
    numbers = [bytes(found[offset + 2 * one : offset + 2 * one + 2]) for one in range(count)]
    for one, number in enumerate(numbers[1:], 1):
        if bytes(found[one * _SECTOR - 2 : one * _SECTOR]) != numbers[0]:
            raise ValueError("a block of its index of names was not written whole")
        found[one * _SECTOR - 2 : one * _SECTOR] = number
    return bytes(found)


def _names(node: bytes) -> Iterator[bytes]:
    """In UTF-16, those of one letter in bytes."""
    at, end = _NODE.unpack_from(node)
    while True:
        _, length, key, flags = _ENTRY.unpack_from(node, at)
        if length < _ENTRY.size or at + length > min(end, len(node)):
            raise ValueError("its index of names breaks off")
        if flags & _LAST:
            return
        if key < _NAME_TEXT:
            raise ValueError("a name in its index is none")
        begin = at + _ENTRY.size
        if node[begin + _NAME_KIND] != _FOR_DOS:
            text = begin + _NAME_TEXT
            yield node[text : text + 2 * node[begin + _NAME_LENGTH]].replace(b"\0", b"")
        at += length
