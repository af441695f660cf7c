"""What NTFS has beside a file's own content: named streams, and content that Windows packed or encrypted.

Limit: streams of NTFS's own files (the first of its table, and `/$Extend`) are not told of: one of them is as
long as the disk, and empty.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import pytsk3

from korora.adapters.filesystem.contents import Read
from korora.adapters.filesystem.ntfs_table import Table

_DATA: Final = pytsk3.TSK_FS_ATTR_TYPE_NTFS_DATA
_OWN: Final = 24  # what NTFS keeps for itself of its table
_REPLACED: Final = b"^"
_PACKED: Final = b"WofCompressedData"


@dataclass(frozen=True, slots=True)
class Stream:
    """`name`: as Windows writes it behind a colon."""

    name: bytes
    size: int
    read: Read
    problem: str
    attribute: Any


def streams(entry: Any, path: bytes) -> Iterator[Stream]:
    """The named ones. `path`: of the file or folder."""
    if int(entry.info.meta.addr) < _OWN or path.startswith(b"/$Extend/"):
        return
    for attribute in entry:
        name = bytes(attribute.info.name or b"")
        if attribute.info.type == _DATA and name:
            which = (attribute.info.type, int(attribute.info.id))
            size = int(attribute.info.size)
            yield Stream(name, size, partial(_read, entry, which), _encrypted(attribute), attribute)


def misnamed(entry: Any, table: Table) -> bool:
    """Whether the name that is told is not the file's: the library makes another of one that is no Unicode.

    OSError where that cannot be known.
    """
    name = bytes(entry.info.name.name)
    if entry.info.meta is None or int(entry.info.meta.addr) < _OWN:
        return False
    known = table.names(entry)
    return _REPLACED in name if known is None else name not in known


def unreadable(entry: Any, table: Table) -> str:
    """Why the content that would be read is not the file's, or not all that it has; "" when it is.

    OSError where that cannot be known.
    """
    inode = int(entry.info.meta.addr)
    if inode >= _OWN and table.contents(entry) != sum(one.info.type == _DATA for one in entry):
        return "not all that it has of content can be told"
    if inode >= _OWN and any(_in_the_dark(one) for one in entry):
        return "where some of its content lies cannot be told"
    for attribute in entry:
        if attribute.info.type != _DATA:
            continue
        name = bytes(attribute.info.name or b"")
        if name == _PACKED:
            return "it is packed by Windows (WOF), and not unpacked here"
        if not name and (words := _encrypted(attribute)):
            return words
    return ""


def _in_the_dark(attribute: Any) -> bool:
    """The library fills what it does not know with zeros."""
    unknown = int(pytsk3.TSK_FS_ATTR_RUN_FLAG_FILLER)
    return attribute.info.type == _DATA and any(int(run.flags) & unknown for run in attribute)


def _read(entry: Any, which: tuple[Any, int], offset: int, length: int) -> bytes:
    return bytes(entry.read_random(offset, length, *which))


def _encrypted(attribute: Any) -> str:
    return "it is encrypted" if int(attribute.info.flags) & int(pytsk3.TSK_FS_ATTR_ENC) else ""
