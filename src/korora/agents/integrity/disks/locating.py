"""Which files lie where two disks differ: by sectors, as far as both were looked at so closely, or by chunks.

Promise: a file is named where a sector (or chunk) that differs belongs to it on one of the disks; what
belongs to none is told as what it is. Memory: two bytes for each sector that differs, and a bounded number of
names; time: a bounded number of steps, whatever the disks' file systems say of themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import numpy as np

from korora.model.files import Kind, Located, Volume

SECTOR_BYTES: Final = 512
NAMES_MAX: Final = 1_000
"""Of one range."""
ALL_NAMES_MAX: Final = 100_000
STEPS_MAX: Final = 20_000_000
METADATA: Final = "file-system metadata or free space"
OUTSIDE: Final = "what is in no volume, such as a table of partitions"
Array = np.ndarray[Any, Any]


class Side(StrEnum):
    """On which of the two disks."""

    ONE = "one"
    OTHER = "other"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class FileThere:
    """A name whose content, or what leads to it, lies there. `kind`: not only of files."""

    volume: int
    path: bytes
    kind: Kind
    on: Side


@dataclass(slots=True)
class Inhabited:
    """Of one range. `more`: whether there are files that were not kept. `beside`: what else differs there."""

    files: dict[tuple[int, bytes], FileThere] = field(default_factory=dict)
    more: bool = False
    beside: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Stretches:
    """Bytes that differ, of one range: rows of (offset, length), looked at by units of so many bytes."""

    range: int
    rows: Array
    unit: int


class TooMuchError(Exception):
    """More steps than anybody waits for."""


def differing_sectors(number: int, offset: int, one: bytes, other: bytes) -> Stretches:
    """Where these bytes, from `offset` on, differ; what only one of them has, differs."""
    length, both = max(len(one), len(other)), min(len(one), len(other))
    sectors = -(-length // SECTOR_BYTES)
    left, right = (
        np.frombuffer(some.ljust(sectors * SECTOR_BYTES, b"\0"), np.uint8) for some in (one, other)
    )
    differ = (left != right).reshape(-1, SECTOR_BYTES).any(axis=1)
    if both < length:
        differ[both // SECTOR_BYTES :] = True
    edges = np.flatnonzero(np.diff(np.concatenate(([False], differ, [False])).astype(np.int8)))
    begins, ends = edges[::2] * SECTOR_BYTES, np.minimum(edges[1::2] * SECTOR_BYTES, length)
    return Stretches(number, np.stack((offset + begins, ends - begins), axis=1), SECTOR_BYTES)


class Locating:
    """Takes where the files of both disks lie, and tells what lies in the stretches."""

    def __init__(self, stretches: Sequence[Stretches]) -> None:
        """In order, and none over another."""
        rows = np.concatenate([np.empty((0, 2), np.int64), *(one.rows for one in stretches)])
        counts = [len(one.rows) for one in stretches]
        self._range = np.repeat(np.array([one.range for one in stretches], np.int64), counts)
        self._unit = np.repeat(np.array([one.unit for one in stretches], np.int64), counts)
        self._begin, self._end = rows[:, 0], rows[:, 0] + rows[:, 1]
        self._first = np.concatenate((np.zeros(1, np.int64), np.cumsum(-(-rows[:, 1] // self._unit))))
        self._named = np.zeros(int(self._first[-1]), bool)
        self._within = np.zeros(int(self._first[-1]), bool)
        self._volumes: dict[tuple[Side, int], list[tuple[int, int]]] = {}
        self._names = self._steps = 0
        self._found: dict[int, Inhabited] = {}

    def take(self, side: Side, one: Located | Volume) -> None:
        """What a reader tells of that disk, in its order. TooMuchError once it tells of too much."""
        match one:
            case Volume(files=False):
                self._unread(side, one)
            case Volume():
                pass
            case Located(path=b""):
                self._volumes.setdefault((side, one.volume), []).extend(one.runs)
                for run in one.runs:
                    self._mark(self._within, run)
            case _:
                for run in one.runs:
                    self._mark(self._named, run)
                    for number in self._ranges(run):
                        self._name(number, side, one)

    def ended(self) -> Mapping[int, Inhabited]:
        """Once all was taken: what lies in each range, by its number."""
        if len(self._range):
            of_unit = np.repeat(self._range, np.diff(self._first))
            for words, nameless in (
                (METADATA, ~self._named & self._within),
                (OUTSIDE, ~self._named & ~self._within),
            ):
                for number in np.unique(of_unit[nameless]).tolist():
                    self._of(number).beside.append(words)
        return self._found

    def _unread(self, side: Side, volume: Volume) -> None:
        """Nobody knows whose these are."""
        words = f"volume {volume.number} ({volume.filesystem}), whose files are not read"
        for run in self._volumes.get((side, volume.number), ()):
            self._mark(self._named, run)
            for number in self._ranges(run):
                beside = self._of(number).beside
                if words not in beside:
                    beside.append(words)

    def _touched(self, run: tuple[int, int]) -> tuple[int, int]:
        """From which stretch to before which one the run meets them."""
        offset, length = run
        first = int(np.searchsorted(self._end, offset, "right"))
        return first, max(first, int(np.searchsorted(self._begin, offset + length, "left")) if length else 0)

    def _ranges(self, run: tuple[int, int]) -> Iterator[int]:
        first, last = self._touched(run)
        if first < last:
            yield from np.unique(self._range[first:last]).tolist()

    def _mark(self, what: Array, run: tuple[int, int]) -> None:
        first, last = self._touched(run)
        self._steps += 1 + last - first
        if self._steps > STEPS_MAX:
            raise TooMuchError
        if first == last:
            return
        begin = max(0, run[0] - int(self._begin[first])) // int(self._unit[first])
        until = min(run[0] + run[1], int(self._end[last - 1])) - int(self._begin[last - 1])
        end = -(-until // int(self._unit[last - 1]))
        what[int(self._first[first]) + begin : int(self._first[last - 1]) + end] = True

    def _name(self, number: int, side: Side, file: Located) -> None:
        there, key = self._of(number), (file.volume, file.path)
        known = there.files.get(key)
        if known is not None:
            if known.on not in {side, Side.BOTH}:
                there.files[key] = FileThere(file.volume, file.path, file.kind, Side.BOTH)
        elif len(there.files) < NAMES_MAX and self._names < ALL_NAMES_MAX:
            there.files[key] = FileThere(file.volume, file.path, file.kind, side)
            self._names += 1
        else:
            there.more = True

    def _of(self, number: int) -> Inhabited:
        return self._found.setdefault(number, Inhabited())
