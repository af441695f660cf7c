"""The parts of a disk: partitions of MBR and GPT, logical volumes, or a file system on the bare disk.

Promise: what cannot be read is told as a problem; parts that overlap are, too.
Limit: LVM on several disks is not put together: its volumes that reach to another disk are problems.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytsk3
import pyvslvm

from korora.adapters.filesystem.disk import AsFile, Bytes, ForSleuthKit, Part, words_of
from korora.model.files import Problem

MAX_PARTS: Final = 1024
_LVM_LABEL: Final = b"LABELONE"
_SECTOR: Final = 512


@dataclass(frozen=True, slots=True)
class Found:
    """A part, and where it lies on the disk; a logical volume lies in its partition."""

    start: int
    content: Bytes


def found_in(disk: Bytes) -> Iterator[Found | Problem]:
    parts = list(_partitions(disk))
    yield from _overlaps(parts)
    for part in parts or [Found(0, disk)]:
        if isinstance(part, Found) and _is_lvm(part.content):
            yield from _logical(part)
        else:
            yield part


def _partitions(disk: Bytes) -> Iterator[Found | Problem]:
    try:
        table = pytsk3.Volume_Info(ForSleuthKit(disk))
    except OSError:
        return  # no table at all
    sector = int(table.info.block_size)
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
            yield Found(start, Part(disk, start, length))


def _overlaps(parts: list[Found | Problem]) -> Iterator[Problem]:
    end = 0
    for part in sorted((part for part in parts if isinstance(part, Found)), key=lambda part: part.start):
        if part.start < end:
            yield Problem(f"partition at byte {part.start}", "it overlaps another one")
        end = max(end, part.start + part.content.size)


def _is_lvm(part: Bytes) -> bool:
    """A physical volume has its label in one of the first four sectors."""
    head = part.read(0, 4 * _SECTOR)
    return any(head[at : at + 8] == _LVM_LABEL for at in range(0, 4 * _SECTOR, _SECTOR))


class _Logical:
    """A logical volume's bytes."""

    def __init__(self, volume: pyvslvm.logical_volume, keep: tuple[object, ...]) -> None:
        self._volume = volume
        self._keep = keep  # what the library needs for as long as this is used
        self.size = int(volume.size)

    def read(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        return bytes(self._volume.read_buffer_at_offset(length, offset)) if length else b""


def _logical(part: Found) -> Iterator[Found | Problem]:
    try:
        file = AsFile(part.content)
        handle = pyvslvm.handle()
        handle.open_file_object(file)
        handle.open_physical_volume_files_as_file_objects([AsFile(part.content)])
        group = handle.get_volume_group()
        for number in range(min(MAX_PARTS, group.number_of_logical_volumes)):
            yield Found(part.start, _Logical(group.get_logical_volume(number), (file, handle, group)))
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        yield Problem(f"LVM at byte {part.start}", words_of(error))
