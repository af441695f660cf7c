"""Files and memory of this machine, compared with the indicators that are in force.

Promise: every file below a path is looked through to its end, or named as unknown with the reason. Symbolic
links are not followed and what has no content of its own (sockets, pipes, devices in a folder) is counted
as passed over.
Limit: bytes as they lie on the disk; archives and compressed or encrypted content are not opened.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from korora.agents.integrity.indicators.matching.known import Known
from korora.agents.integrity.indicators.matching.scan import Scan
from korora.agents.integrity.indicators.urls import host_of
from korora.errors import UsageError
from korora.model.indicator import Force, Hit, Indicator, Kind, Standing
from korora.ports.indicators import IndicatorStore
from korora.wiring.files import PASSED_OVER, files_below
from korora.wiring.indicators import Told, told

HITS_MAX: Final = 1000
"""Different hits that are kept of one file; how many there were is counted."""
_PIECE: Final = 1 << 20
HASHED_ZEROS_MAX: Final = 64 << 30
"""Of holes, of all files together."""
_UNHASHED: Final = f"its holes are longer than what is hashed of them ({HASHED_ZEROS_MAX >> 30} GiB)"


@dataclass(slots=True)
class Match:
    """One indicator in one file: where it stands first, and how often."""

    hit: Hit
    times: int
    told: Told | None = None  # None for a host of a URL


@dataclass(slots=True)
class Examined:
    """A file with something to tell. `unknown` says why it could not be read to its end."""

    path: str
    size: int = 0
    unknown: str = ""
    matches: list[Match] = field(default_factory=list)
    dropped: int = 0

    @property
    def matched(self) -> bool:
        return any(match.hit.force is not Force.HOST for match in self.matches)


@dataclass(slots=True)
class Comparison:
    """`examined` holds the files with matches, hints or something unknown; the others are counted only."""

    indicators: int
    files: int = 0
    size: int = 0
    passed_over: int = 0
    examined: list[Examined] = field(default_factory=list)

    @property
    def matched(self) -> int:
        return sum(one.matched for one in self.examined)

    @property
    def unknown(self) -> int:
        return sum(bool(one.unknown) for one in self.examined)


def known(store: IndicatorStore, now: int) -> Known:
    """Everything that may be in force, in memory."""
    found = Known()
    for kind in Kind:
        if kind is not Kind.KEPT:
            found.add_all(kind, store.values(kind, now))
    return found


def compare(
    store: IndicatorStore, paths: Sequence[Path], memory: Path | None, now: int, own: Path | None = None
) -> Comparison:
    """UsageError(kind="nothing-compared") when no indicator is in force. `own`: the store, passed over."""
    matching, itself = begun(store, now), _identity(own)
    for path in paths:
        for place, why in files_below(path):
            _look(matching, place, why, itself=itself, digests=True)
    if memory is not None:
        _look(matching, memory, "", itself=itself, digests=False)
    if not matching.comparison.files:
        where = ", ".join(str(path) for path in paths)
        matching.comparison.examined.append(Examined(where, unknown="there is no file in it"))
    return matching.comparison


def begun(store: IndicatorStore, now: int) -> Matching:
    """UsageError(kind="nothing-compared") when no indicator is in force."""
    wanted = known(store, now)
    if not wanted.count:
        raise UsageError(
            "nothing was compared: there is no indicator in force",
            kind="nothing-compared",
            remedy="import some first: korora indicators import FILE",
        )
    return Matching(store, wanted, now)


class Matching:
    """Files compared one after another, in pieces as they come. It is a `tapping.Taker`."""

    def __init__(self, store: IndicatorStore, wanted: Known, now: int) -> None:
        self.comparison = Comparison(wanted.count)
        self._store = store
        self._wanted = wanted
        self._now = now
        self._zeros_left = HASHED_ZEROS_MAX
        self._unhashed = ""

    def begin(self, name: str, _size: int | None = None, *, digests: bool = True) -> None:
        """`digests` False where the whole has no meaning."""
        self._examined, self._unhashed = Examined(name), ""
        self._digests = digests and bool(self._wanted.hashes)
        self._scan, self._tally = Scan(self._wanted, digests=digests), _Tally(self._examined)

    def piece(self, data: bytes) -> None:
        self._tally.add(self._scan.feed(data))

    def hole(self, length: int) -> None:
        """So many zeros, which nobody has to bring."""
        if self._digests and length > self._zeros_left:
            self._digests, self._unhashed = False, _UNHASHED
        if self._digests:
            self._zeros_left -= length
        self._tally.add(self._scan.gap(length, hashed=self._digests))

    def end(self, problem: str = "") -> None:
        """All of it came, or `problem` says why not."""
        examined, comparison = self._examined, self.comparison
        if not problem:
            self._tally.add(self._scan.finish())
        examined.size, examined.unknown = self._scan.size, problem or self._unhashed
        comparison.files += 1
        comparison.size += examined.size
        _judge(examined, self._store, self._now)
        if examined.matches or examined.unknown:
            comparison.examined.append(examined)


def _look(matching: Matching, path: Path, why: str, *, itself: tuple[int, int] | None, digests: bool) -> None:
    """The store itself, in which every indicator stands, is passed over."""
    if why == PASSED_OVER:
        matching.comparison.passed_over += 1
        return
    matching.begin(os.fsdecode(path), digests=digests)
    try:
        if not why and not _through(matching, path, itself):
            matching.comparison.passed_over += 1
            return
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
    matching.end(why)


def _through(matching: Matching, path: Path, itself: tuple[int, int] | None) -> bool:
    """False for the store itself. OSError, ValueError when it cannot be read."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) == itself:
            return False
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            raise ValueError("it is no file")
        if stat.S_ISBLK(status.st_mode) or not status.st_size:  # also what the kernel makes while it is read
            while piece := file.read(_PIECE):
                matching.piece(piece)
        else:
            _sparsely(matching, descriptor)
    return True


def _sparsely(matching: Matching, descriptor: int) -> None:
    """What lies there, and how long the holes between are, up to where the file ends by then."""
    at = 0
    while True:
        data, end = _next(descriptor, at)
        if data > at:
            matching.hole(data - at)
        at = data
        if at == end:
            return
        while at < end and (piece := os.pread(descriptor, min(_PIECE, end - at), at)):
            matching.piece(piece)
            at += len(piece)
        if at < end:
            return  # it became shorter


def _next(descriptor: int, at: int) -> tuple[int, int]:
    """(begin, end) of the next data; both the file's end if there is none."""
    try:
        data = os.lseek(descriptor, at, os.SEEK_DATA)
        return data, os.lseek(descriptor, data, os.SEEK_HOLE)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        end = max(at, os.fstat(descriptor).st_size)
        return end, end


class _Tally:
    """Hits by what was found: the first of each, and how many."""

    def __init__(self, examined: Examined) -> None:
        self._examined = examined
        self._by_value: dict[tuple[Kind, str, Force], Match] = {}

    def add(self, hits: list[Hit]) -> None:
        for hit in hits:
            key = (hit.kind, hit.value, hit.force)
            match = self._by_value.get(key)
            if match is not None:
                match.times += 1
            elif len(self._by_value) < HITS_MAX:
                self._by_value[key] = match = Match(hit, 1)
                self._examined.matches.append(match)
            else:
                self._examined.dropped += 1


def _judge(examined: Examined, store: IndicatorStore, now: int) -> None:
    """Ask the sources, drop what is not in force after all, and hints to hosts whose URL stands there too."""
    whole = {
        host_of(match.hit.value.encode()).decode()
        for match in examined.matches
        if match.hit.kind is Kind.URL and match.hit.force is Force.FULL
    }
    kept = []
    for match in sorted(examined.matches, key=lambda match: (match.hit.offset, match.hit.kind)):
        if match.hit.force is Force.HOST:
            if match.hit.value not in whole:
                kept.append(match)
            continue
        indicator: Indicator | None = store.find(match.hit.kind, match.hit.value)
        if indicator is not None:
            match.told = told(indicator, now)
            if match.told.standing is Standing.IN_FORCE:
                kept.append(match)
    examined.matches = kept


def _identity(path: Path | None) -> tuple[int, int] | None:
    try:
        status = path.stat() if path else None
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status else None
