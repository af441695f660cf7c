"""The chain of tables in which an MBR's logical partitions stand, followed as Linux does.

The Sleuth Kit stops in silence where the chain leads back, is long, or leads to no table: what would come
then is not seen. Here that is told.
Source: the kernel's block/partitions/msdos.c.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from korora.adapters.filesystem.disk import Bytes
from korora.model.files import Problem

MAX_TABLES: Final = 100
_KINDS: Final = {0x05, 0x0F, 0x85}
_ENTRIES, _ENTRY_BYTES, _COUNT = 446, 16, 4
_SIGNATURE: Final = b"\x55\xaa"
_PLACE: Final = struct.Struct("<II")


def broken_chains(disk: Bytes, sector: int) -> Iterator[Problem]:
    """Of a disk that has an MBR."""
    for start in _extended(disk.read(0, 512)):
        yield from _chain(disk, start, sector)


def _chain(disk: Bytes, first: int, sector: int) -> Iterator[Problem]:
    seen: set[int] = set()
    at = first
    while True:
        where = f"logical partitions at byte {at * sector}"
        table = disk.read(at * sector, 512)
        if at in seen:
            yield Problem(where, "their tables lead back to one of them")
            return
        if len(seen) >= MAX_TABLES:
            yield Problem(where, f"there are more than {MAX_TABLES} tables of them")
            return
        if table[510:512] != _SIGNATURE:
            if at == first and not any(table):  # made, and nothing was put into it
                return
            yield Problem(where, "there is no table of them")
            return
        seen.add(at)
        following = list(_extended(table))
        if len(following) > 1:
            yield Problem(where, "a table of them leads to more than one other")
        if not following:
            return
        at = first + following[0]


def _extended(table: bytes) -> Iterator[int]:
    """The first sector of each entry that leads to a table; of a table within, counted from the first."""
    for number in range(_COUNT):
        entry = table[_ENTRIES + number * _ENTRY_BYTES :][:_ENTRY_BYTES]
        if len(entry) == _ENTRY_BYTES and entry[4] in _KINDS:
            start, length = _PLACE.unpack_from(entry, 8)
            if length:
                yield int(start)
