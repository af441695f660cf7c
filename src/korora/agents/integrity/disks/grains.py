"""Where the tables of a sparse VMDK lie, by its header: QEMU reads those behind the file's end as zeros.

Limit: grains are not looked at; QEMU's own check tells of those behind the end.
Source: VMware, "Virtual Disk Format 5.0" (hosted sparse extents); QEMU's block/vmdk.c for the older kind.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from korora.errors import IntegrityError

HEADER_BYTES: Final = 512
FOOTER_FROM_END: Final = 1024
"""Where the header of a stream that was written from front to end stands once more, with the directory's
place."""
_SECTOR: Final = 512
_SPARSE: Final = struct.Struct("<4sIIQQQQIQQ")
_OLD: Final = struct.Struct("<4sIIIIII")
_AT_THE_END: Final = (1 << 64) - 1
_OLD_ENTRIES: Final = 4096
_ENTRY_BYTES: Final = 4
MAX_ENTRIES: Final = 1 << 27
"""QEMU opens none with more."""


@dataclass(frozen=True, slots=True)
class Directory:
    """`entries` of four bytes, from byte `place` on; each says where a table of so many bytes is."""

    place: int
    entries: int
    table_bytes: int

    @property
    def end(self) -> int:
        return self.place + self.entries * _ENTRY_BYTES


def directory(header: bytes) -> Directory | None:
    """None where it is said in the footer. IntegrityError for what is no header of a sparse extent."""
    try:
        if header.startswith(b"COWD"):
            *_, place, entries = _OLD.unpack_from(header)
            return _checked(Directory(place * _SECTOR, entries, _OLD_ENTRIES * _ENTRY_BYTES))
        _, _, _, capacity, grain, _, _, per_table, _, place = _SPARSE.unpack_from(header)
    except struct.error as error:
        raise IntegrityError("the image's header breaks off", kind="bad-image") from error
    if place == _AT_THE_END:
        return None
    if not grain or not per_table:
        raise IntegrityError("the image's header has no grains", kind="bad-image")
    entries = -(-capacity // (grain * per_table))
    return _checked(Directory(place * _SECTOR, entries, per_table * _ENTRY_BYTES))


def _checked(found: Directory) -> Directory:
    if found.place < HEADER_BYTES:
        raise IntegrityError("the image's directory of tables lies in its header", kind="bad-image")
    if found.entries > MAX_ENTRIES:
        raise IntegrityError("the image has more tables than can be", kind="bad-image")
    return found


def least_bytes(found: Directory, pieces: Iterable[bytes]) -> int:
    """How long the file is at least. `pieces`: all of the directory."""
    least = found.end
    for piece in pieces:
        entries = array("I")
        entries.frombytes(piece[: len(piece) // _ENTRY_BYTES * _ENTRY_BYTES])
        if last := max(entries, default=0):
            least = max(least, last * _SECTOR + found.table_bytes)
    return least
