"""Logical volumes of one disk: linear and striped, of as many segments and partitions as they like.

Promise: a byte is read where LVM's description says that it lies, within its physical volume. Whatever is not
put together here (mirrors, RAID, thin volumes, caches, snapshots), or reaches to another disk, is a problem.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from korora.adapters.filesystem.disk import Bytes, words_of
from korora.adapters.filesystem.lvm import metadata
from korora.adapters.filesystem.lvm.grammar import parsed
from korora.adapters.filesystem.lvm.group import Group, Run, Volume
from korora.model.files import Problem

MAX_STRETCHES: Final = 1 << 20
Stretch = tuple[int, int, int]
"""(offset in the volume, offset on the disk, length) in bytes."""


def is_one(part: Bytes) -> bool:
    """Whether it is a physical volume."""
    return metadata.label_at(part) is not None


def volumes(parts: Sequence[tuple[int, Bytes]], most: int) -> Iterator[Logical | Problem]:
    """`parts`: the physical volumes of a disk, each with where it begins."""
    there: dict[str, Place] = {}
    groups: dict[str, Group] = {}
    for start, content in parts:
        try:
            at = metadata.label_at(content)
            physical = metadata.read(content, at if at is not None else 0)
            if physical.id in there:
                raise ValueError("another physical volume of this disk has its id")
            there[physical.id] = Place(start, content)
            if physical.text is not None:
                group = Group.of(parsed(physical.text))
                if group.id not in groups or groups[group.id].number < group.number:
                    groups[group.id] = group
        except (OSError, ValueError) as error:
            yield Problem(f"LVM at byte {start}", words_of(error))
    named = {one.id for group in groups.values() for one in group.physical.values()}
    for identity, place in there.items():
        if identity not in named:
            yield Problem(f"LVM at byte {place.start}", "it is of no group that is described on this disk")
    count = 0
    for group in groups.values():
        for volume in group.volumes():
            count += 1
            if count > most:
                yield Problem("LVM", f"there are more than {most} logical volumes")
                return
            try:
                yield Logical(group, volume, there)
            except ValueError as error:
                where = f"logical volume {group.name[:200]}/{volume.name[:200]}"
                yield Problem(where, words_of(error))


@dataclass(frozen=True, slots=True)
class Place:
    """A physical volume: where on the disk it begins, and its bytes."""

    start: int
    content: Bytes


@dataclass(frozen=True, slots=True)
class _Segment:
    """`areas`: of each stripe, in what it lies and from where on."""

    begin: int
    size: int
    stripe: int
    areas: tuple[tuple[Place, int], ...]

    def piece(self, offset: int, length: int) -> tuple[Place, int, int]:
        """(in what, from where on, how much) of so much at this offset of the volume lies in one piece."""
        within = offset - self.begin
        length = min(length, self.size - within)
        if len(self.areas) == 1:
            place, at = self.areas[0]
            return place, at + within, length
        number, rest = divmod(within, self.stripe)
        row, column = divmod(number, len(self.areas))
        place, at = self.areas[column]
        return place, at + row * self.stripe + rest, min(length, self.stripe - rest)


class Logical:
    """A logical volume's bytes. ValueError when they cannot be put together."""

    def __init__(self, group: Group, volume: Volume, there: dict[str, Place]) -> None:
        if volume.problem:
            raise ValueError(volume.problem)
        self.size = 0
        self._segments: list[_Segment] = []
        for run in volume.runs:
            segment = _segment(group, run, self.size, there)
            self._segments.append(segment)
            self.size += segment.size
        self._begins = [segment.begin for segment in self._segments]
        self.start = self._segments[0].areas[0][0].start if self._segments else 0

    def read(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        parts = []
        for place, at, count in self._pieces(offset, length):
            piece = place.content.read(at, count)
            parts.append(piece)
            if len(piece) < count:
                raise OSError(f"byte {at + len(piece)} of its physical volume cannot be read")
        return b"".join(parts)

    def lies(self) -> list[Stretch]:
        """Neighbours as one. OSError where there are too many to say."""
        found: list[Stretch] = []
        offset = 0
        for place, at, count in self._pieces(0, self.size):
            where = place.start + at
            if found and found[-1][1] + found[-1][2] == where:
                found[-1] = (found[-1][0], found[-1][1], found[-1][2] + count)
            elif len(found) >= MAX_STRETCHES:
                raise OSError("it lies in too many pieces to say where")
            else:
                found.append((offset, where, count))
            offset += count
        return found

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[Place, int, int]]:
        while length:
            segment = self._segments[bisect_right(self._begins, offset) - 1]
            place, at, count = segment.piece(offset, length)
            yield place, at, count
            offset, length = offset + count, length - count


def _segment(group: Group, run: Run, begin: int, there: dict[str, Place]) -> _Segment:
    columns = len(run.areas)
    if run.extents % columns:
        raise ValueError("its stripes are not of one length")
    length = run.extents // columns * group.extent_bytes
    if columns > 1 and (run.stripe_bytes <= 0 or length % run.stripe_bytes):
        raise ValueError("its stripes do not fit its extents")
    areas = []
    for name, extent in run.areas:
        physical = group.physical.get(name)
        if physical is None:
            raise ValueError("it lies in another logical volume, which is not put together here")
        if physical.id not in there or physical.missing:
            raise ValueError("it reaches to another disk")
        place, at = there[physical.id], physical.begin + extent * group.extent_bytes
        if extent + run.extents // columns > physical.extents or at + length > place.content.size:
            raise ValueError("it reaches beyond the end of its physical volume")
        areas.append((place, at))
    return _Segment(begin, run.extents * group.extent_bytes, run.stripe_bytes, tuple(areas))
