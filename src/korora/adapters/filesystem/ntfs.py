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

_DATA: Final = pytsk3.TSK_FS_ATTR_TYPE_NTFS_DATA
_OWN: Final = 24  # what NTFS keeps for itself of its table
_PACKED: Final = b"WofCompressedData"


@dataclass(frozen=True, slots=True)
class Stream:
    """`name`: as Windows writes it behind a colon."""

    name: bytes
    size: int
    read: Read
    problem: str


def streams(entry: Any, path: bytes) -> Iterator[Stream]:
    """The named ones. `path`: of the file or folder."""
    if int(entry.info.meta.addr) < _OWN or path.startswith(b"/$Extend/"):
        return
    for attribute in entry:
        name = bytes(attribute.info.name or b"")
        if attribute.info.type == _DATA and name:
            which = (attribute.info.type, int(attribute.info.id))
            size = int(attribute.info.size)
            yield Stream(name, size, partial(_read, entry, which), _encrypted(attribute))


def unreadable(entry: Any) -> str:
    """Why the content that would be read is not the file's; "" when it is."""
    for attribute in entry:
        if attribute.info.type != _DATA:
            continue
        name = bytes(attribute.info.name or b"")
        if name == _PACKED:
            return "it is packed by Windows (WOF), and not unpacked here"
        if not name and (words := _encrypted(attribute)):
            return words
    return ""


def _read(entry: Any, which: tuple[Any, int], offset: int, length: int) -> bytes:
    return bytes(entry.read_random(offset, length, *which))


def _encrypted(attribute: Any) -> str:
    return "it is encrypted" if int(attribute.info.flags) & int(pytsk3.TSK_FS_ATTR_ENC) else ""
