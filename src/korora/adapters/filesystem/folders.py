"""Names in folders: which cannot be, which were told already, and how many there are on the disk.

The Sleuth Kit leaves out a name that it can make no sense of, and says nothing; a guest may see that file all
the same. So the names in folders of ext, FAT and exFAT are counted as they lie there.
Limit: folders of HFS+ are not counted. Those of NTFS: see ntfs_index.
Source: the kernel's Documentation/filesystems/ext4, "Directory Entries", and fs/fat/dir.c; Microsoft, "exFAT
file system specification".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

ITSELF: Final = frozenset({b".", b".."})
_EXT: Final = struct.Struct("<IHB")
_LARGEST_BLOCK: Final = 1 << 16
_ENTRY_BYTES: Final = 32
_FAT_FREE, _FAT_LONG = {0x00, 0xE5}, 0x0F
_LAST_OF_LONG, _MOST_OF_LONG = 0x40, 20
_EXFAT_FILE, _EXFAT_STREAM, _EXFAT_NAME = 0x85, 0xC0, 0xC1
_EXFAT_OWN: Final = {0x03, 0x81, 0x82, 0x83}


def can_be(name: bytes) -> bool:
    """Whether Linux would give it out as the name of a file."""
    return bool(name) and name not in ITSELF and b"/" not in name and b"\0" not in name


@dataclass(slots=True)
class Told:
    """The names of one folder that were told. 64 bits are kept of each."""

    _seen: set[int] = field(default_factory=set)

    def refused(self, name: bytes) -> str:
        """Why another file cannot be told by this name; "" if it can."""
        if not can_be(name):
            return f"a name that cannot be: {name[:300]!r}"
        if hash(name) in self._seen:
            return f"a second file of the name {name[:300]!r}"
        self._seen.add(hash(name))
        return ""


def in_ext(pieces: Iterable[bytes], block: int) -> int:
    """Names beside `.` and `..`, in pieces of whole blocks. ValueError where they break off."""
    return sum(_in_ext(piece, block) for piece in pieces)


def in_inode(areas: Iterable[bytes]) -> int:
    """As `in_ext`, of a folder that lies in its inode."""
    return sum(_in_ext(area, len(area)) for area in areas)


def _in_ext(piece: bytes, block: int) -> int:
    found = 0
    for begin in range(0, len(piece), block):
        at, end = begin, begin + block
        while at < end:
            if at + _EXT.size > len(piece):
                raise ValueError("its names break off")
            inode, length, name = _EXT.unpack_from(piece, at)
            if block == _LARGEST_BLOCK and length in {0, _LARGEST_BLOCK - 1}:
                length = _LARGEST_BLOCK
            if length < _EXT.size + 1 or at + max(length, _EXT.size + 1 + name) > end:
                raise ValueError("its names break off")
            if inode:
                text = piece[at + _EXT.size + 1 : at + _EXT.size + 1 + name]
                if b"\0" in text:
                    raise ValueError("a name in it holds a zero")
                found += text not in ITSELF
            at += length
    return found


def in_fat(pieces: Iterable[bytes]) -> int:
    """As `in_ext`, the volume's label among them, which the library tells as well. ValueError for a long name
    that is no Unicode.
    """
    found, parts = 0, list[bytes]()
    for entry in _entries(pieces):
        kind = entry[11]
        if entry[0] in _FAT_FREE:
            parts.clear()
        elif kind & 0x3F == _FAT_LONG:
            if entry[0] & _LAST_OF_LONG:
                parts.clear()
            parts.append(entry[1:11] + entry[14:26] + entry[28:32])
            if len(parts) > _MOST_OF_LONG:
                raise ValueError("a name in it has no end")
        else:
            _checked(b"".join(reversed(parts)))
            parts.clear()
            found += entry[:11].rstrip() not in ITSELF
    return found


def in_exfat(pieces: Iterable[bytes]) -> int:
    """As `in_fat`: with the volume's label, there or not, and its two tables."""
    found, length, text = 0, 0, b""
    for entry in _entries(pieces):
        kind = entry[0]
        if kind == _EXFAT_FILE:
            found, length, text = found + 1, 0, b""
        elif kind == _EXFAT_STREAM:
            length = 2 * entry[3]
        elif kind == _EXFAT_NAME:
            text += entry[2:] if len(text) < length else b""
            if len(text) >= length > 0:
                _checked(text[:length], ended=True)
        else:
            found += kind in _EXFAT_OWN
            length, text = 0, b""
    return found


def _entries(pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        for at in range(0, len(piece) - _ENTRY_BYTES + 1, _ENTRY_BYTES):
            yield piece[at : at + _ENTRY_BYTES]


def _checked(text: bytes, *, ended: bool = False) -> None:
    """Of UTF-16, up to the first unit of zeros, unless where it ends is said."""
    units = [text[at : at + 2] for at in range(0, len(text), 2)]
    if b"\0\0" in units:
        if ended:
            raise ValueError("a name in it holds a zero")
        units = units[: units.index(b"\0\0")]
    try:
        b"".join(units).decode("utf-16-le")
    except UnicodeDecodeError as error:
        raise ValueError("a name in it is no Unicode, and is not told as it is") from error
