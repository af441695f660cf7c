"""What a record of NTFS's table states of contents and names, whatever a reader made of it.

The Sleuth Kit leaves out an attribute that it cannot make sense of, such as one whose hole is longer than the
volume, and what comes after it: the file is then empty to it, and nothing is said. Here they are counted.
Of a name that is no Unicode it tells another one.
Source: Linux-NTFS, "NTFS Documentation": file records, attributes, $ATTRIBUTE_LIST.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

import pytsk3

from korora.adapters.filesystem.disk import Bytes

_U16, _U32, _U64 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")
_SECTOR: Final = 512
_LIST, _NAME, _DATA, _END = 0x20, 0x30, 0x80, 0xFFFFFFFF
_NAME_LENGTH, _NAME_TEXT = 0x40, 0x42
_LEAST, _LISTED_LEAST = 24, 26
_MOST_LISTED: Final = 256 << 10
"""Windows' own bound for such a list."""


class Table:
    """Of a volume that The Sleuth Kit has opened as NTFS."""

    def __init__(self, part: Bytes, files: Any) -> None:
        boot = part.read(0, _SECTOR)
        (sector,), per_cluster = _U16.unpack_from(boot, 0x0B), boot[0x0D]
        cluster = sector * (per_cluster if per_cluster <= 0x80 else 1 << (256 - per_cluster))
        stated = boot[0x40]
        self._record = stated * cluster if stated < 0x80 else 1 << (256 - stated)
        self._table = files.open_meta(0)

    def names(self, entry: Any) -> set[bytes] | None:
        """All that it has, those that are no Unicode left out; None if it may have others elsewhere. OSError
        as `contents`.
        """
        try:
            record = self._whole(int(entry.info.meta.addr))
            found = list(_attributes(record))
            if any(kind == _LIST for kind, _, _ in found):
                return None
            return {name for kind, at, _ in found if kind == _NAME and (name := _name(record, at))}
        except (struct.error, IndexError) as error:
            raise OSError("its record in NTFS's table breaks off") from error

    def contents(self, entry: Any) -> int:
        """How many there are of this file or folder, named and unnamed. OSError where that cannot be read."""
        try:
            return self._contents(entry)
        except (struct.error, IndexError) as error:
            raise OSError("its record in NTFS's table breaks off") from error

    def _contents(self, entry: Any) -> int:
        record = self._whole(int(entry.info.meta.addr))
        found = list(_attributes(record))
        if any(kind == _LIST for kind, _, _ in found):
            return _listed(_list_of(entry))
        # What is not in the file's record, or begins later in the content, goes on with what was counted.
        return sum(kind == _DATA and _begins(record, at) for kind, at, _ in found)

    def _whole(self, inode: int) -> bytes:
        """With the ends of its sectors put back, where a number stands that shows that all were written."""
        record = bytearray(self._table.read_random(inode * self._record, self._record))
        if record[:4] != b"FILE" or len(record) != self._record:
            raise OSError("its record in NTFS's table is damaged")
        (offset,), (count,) = _U16.unpack_from(record, 4), _U16.unpack_from(record, 6)
        numbers = [bytes(record[offset + 2 * one : offset + 2 * one + 2]) for one in range(count)]
        if count != len(record) // _SECTOR + 1:
            raise OSError("its record in NTFS's table is damaged")
        for one, number in enumerate(numbers[1:], 1):
            if bytes(record[one * _SECTOR - 2 : one * _SECTOR]) != numbers[0]:
                raise OSError("its record in NTFS's table was not written whole")
            record[one * _SECTOR - 2 : one * _SECTOR] = number
        return bytes(record)


def _attributes(record: bytes) -> Iterator[tuple[int, int, int]]:
    """(kind, where, length) of each."""
    (at,) = _U16.unpack_from(record, 0x14)
    while (kind := _U32.unpack_from(record, at)[0]) != _END:
        (length,) = _U32.unpack_from(record, at + 4)
        if length < _LEAST or at + length > len(record):
            raise OSError("its record in NTFS's table is damaged")
        yield int(kind), at, int(length)
        at += length


def _name(record: bytes, at: int) -> bytes:
    begin = at + int(_U16.unpack_from(record, at + 0x14)[0])
    text = begin + _NAME_TEXT
    try:
        return record[text : text + 2 * record[begin + _NAME_LENGTH]].decode("utf-16-le").encode()
    except UnicodeDecodeError:
        return b""


def _begins(record: bytes, at: int) -> bool:
    return not record[at + 8] or not _U64.unpack_from(record, at + 16)[0]


def _list_of(entry: Any) -> bytes:
    for attribute in entry:
        if attribute.info.type == pytsk3.TSK_FS_ATTR_TYPE_NTFS_ATTRLIST:
            size = int(attribute.info.size)
            found = bytes(entry.read_random(0, size, attribute.info.type, int(attribute.info.id)))
            if 0 < size <= _MOST_LISTED and len(found) == size:
                return found
    raise OSError("what its record in NTFS's table leads to cannot be read")


def _listed(entries: bytes) -> int:
    at, found = 0, 0
    while at < len(entries):
        (kind,), (length,) = _U32.unpack_from(entries, at), _U16.unpack_from(entries, at + 4)
        if length < _LISTED_LEAST:
            raise OSError("its list of attributes is damaged")
        found += kind == _DATA and not _U64.unpack_from(entries, at + 8)[0]
        at += length
    return found
