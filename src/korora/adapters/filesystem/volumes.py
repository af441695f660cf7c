"""The parts of a disk: partitions of MBR and GPT, logical volumes, or a file system on the bare disk.

Promise: what cannot be read is told as a problem; parts that overlap are, too.
Limit: LVM on several disks is not put together: its volumes that reach to another disk are problems.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import pytsk3

from korora.adapters.filesystem.disk import Bytes, ForSleuthKit, Part, words_of
from korora.adapters.filesystem.extended import broken_chains
from korora.adapters.filesystem.lvm import volumes as lvm
from korora.model.files import Problem

MAX_PARTS: Final = 1024


Stretch = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Found:
    """A part, and where it lies on the disk; a logical volume starts where its first partition does.

    `lies`: where its bytes are, as (offset in it, offset on the disk, length). OSError where nobody can say.
    """

    start: int
    content: Bytes
    lies: Callable[[], list[Stretch]]


def found_in(disk: Bytes) -> Iterator[Found | Problem]:
    parts = list(_partitions(disk))
    yield from _overlaps(parts)
    parts = parts or [_plain(0, disk)]
    physical = [part for part in parts if isinstance(part, Found) and _is_physical(part)]
    for part in parts:
        if part not in physical:
            yield part
        elif part is physical[0]:  # all of them together
            yield from _logical(physical)


def _plain(start: int, content: Bytes) -> Found:
    return Found(start, content, lambda: [(0, start, content.size)])


def _partitions(disk: Bytes) -> Iterator[Found | Problem]:
    try:
        table = pytsk3.Volume_Info(ForSleuthKit(disk))
    except OSError:
        return  # no table at all
    except RuntimeError as error:  # what the disk itself said, as the library hands it on
        yield Problem("partitions", f"whether there are any cannot be told: {words_of(error)}")
        return
    sector = int(table.info.block_size)
    if table.info.vstype == pytsk3.TSK_VS_TYPE_DOS:
        yield from _chains(disk, sector)
    number = 0
    for part in table:
        if part.flags != pytsk3.TSK_VS_PART_FLAG_ALLOC:
            continue
        number += 1
        if number > MAX_PARTS:
            yield Problem("partitions", f"there are more than {MAX_PARTS}")
            return
        start, length = int(part.start) * sector, int(part.len) * sector
        if start + length > disk.size:
            yield Problem(f"partition at byte {start}", "it reaches beyond the end of the disk")
        if start < disk.size:
            yield _plain(start, Part(disk, start, length))


def _chains(disk: Bytes, sector: int) -> Iterator[Problem]:
    try:
        yield from broken_chains(disk, sector)
    except OSError as error:
        yield Problem("logical partitions", words_of(error))


def _is_physical(part: Found) -> bool:
    """What cannot be read is for who reads it to tell."""
    try:
        return lvm.is_one(part.content)
    except OSError:
        return False


def _overlaps(parts: list[Found | Problem]) -> Iterator[Problem]:
    end = 0
    for part in sorted((part for part in parts if isinstance(part, Found)), key=lambda part: part.start):
        if part.start < end:
            yield Problem(f"partition at byte {part.start}", "it overlaps another one")
        end = max(end, part.start + part.content.size)


def _logical(parts: list[Found]) -> Iterator[Found | Problem]:
    for one in lvm.volumes([(part.start, part.content) for part in parts], MAX_PARTS):
        yield one if isinstance(one, Problem) else Found(one.start, one, one.lies)
