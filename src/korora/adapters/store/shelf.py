"""What one scope has: its index and its own copies, looked up and looked after.

Promise: an index that is lost or damaged is made anew of the copies that are there, each compared with its
name; references are lost with it, and told. One scope's folder is never looked into for another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, TypeVar

from korora.adapters.store import rebuilding
from korora.adapters.store.chunks import Chunks
from korora.adapters.store.failing import (
    DamagedError,
    LostError,
    origin_lost,
    still_damaged,
    storage_failed,
)
from korora.adapters.store.fetching import Fetching
from korora.adapters.store.filling import Filling
from korora.adapters.store.index import Index
from korora.errors import ToolError
from korora.model.stored import (
    Bounds,
    Collected,
    Found,
    Kind,
    Origin,
    Scope,
    Stat,
    Trouble,
    Verified,
)
from korora.ports.clock import Clock

T = TypeVar("T")
Chunk = bytes | bytearray | memoryview
_AT_ONCE: Final = 16_384
_INDEX: Final = "index.db"
_SAID_EVERY_S: Final = 60
_TOLD_MOST: Final = 1000


class Shelf:
    """For several threads."""

    def __init__(self, folder: Path, scope: Scope, bounds: Bounds, clock: Clock) -> None:
        """Make or open. OSError, or ToolError."""
        self.scope = scope
        self.chunks = Chunks(folder)
        self._path = folder / _INDEX
        self._clock = clock
        self.filling = Filling(self.run, self.chunks, bounds, self._now)
        self._lock = threading.RLock()
        self._told: list[Found] = []
        self._used: dict[int, int] = {}
        self.chunks.prepare()
        self._index = self._opened()

    def close(self) -> None:
        self._index.close()

    def run(self, work: Callable[[Index], T]) -> T:
        """Once more with a new index if the one there is of no use."""
        for last in (False, True):
            index = self._index
            try:
                index.check_is_current()
                return work(index)
            except DamagedError as error:
                if last:
                    raise still_damaged(self._path, str(error)) from error
                self._mend(index)
            except LostError as error:
                raise origin_lost() from error
            except OSError as error:
                raise storage_failed(error) from error
        raise AssertionError

    def fetch(self, names: Collection[bytes], room: int) -> dict[bytes, bytes]:
        """Verified, of at most `room` bytes together."""

        def work(index: Index) -> dict[bytes, bytes]:
            with closing(Fetching(self.scope, index, self.chunks)) as fetching:
                got = fetching.fetch(names, room)
            self._tell(fetching.found)
            self._use(index, fetching.used)
            return got

        return self.run(work)

    def found(self) -> list[Found]:
        with self._lock:
            told, self._told = self._told, []
            return told

    def forget(self, number: int) -> bool:
        if not any(one.number == number for one in self.run(Index.origins)):
            return False
        self.filling.forget([number])
        return True

    def _use(self, index: Index, origins: Iterable[int]) -> None:
        """Said once a minute; not worth a failure."""
        now = self._now()
        late = [one for one in origins if now - self._used.get(one, 0) >= _SAID_EVERY_S]
        if late:
            self._used.update(dict.fromkeys(late, now))
            with suppress(ToolError):
                index.notes.use(late, now)

    # -- looked after ----------------------------------------------------------------------------------------

    def origins(self) -> list[Origin]:
        return self.run(Index.origins)

    def stat(self) -> Stat:
        origins, counted = self.run(Index.origins), self.run(Index.counters)
        return Stat(
            scope=self.scope,
            origins=len(origins),
            entries=sum(one.entries for one in origins),
            kept=sum(one.kind is Kind.KEPT for one in origins),
            size=sum(one.size for one in origins),
            index_size=self._path.stat().st_size,
            **{trouble.value: counted.get(trouble.value, 0) for trouble in Trouble},
        )

    def verify(self) -> Verified:
        index = self._index
        if self.run(Index.problem) is not None:
            self._mend(index)
        return self.run(self._looked_through)

    def _looked_through(self, index: Index) -> Verified:
        sound = 0
        with closing(Fetching(self.scope, index, self.chunks)) as fetching:
            for origin in index.origins():
                for parts in index.parts(origin.number):
                    sound += fetching.look(origin.number, parts)
        self._tell(fetching.found)
        rotted = tuple(one.what for one in fetching.found if one.trouble is Trouble.ROTTED)
        troubles = fetching.troubles
        return Verified(self.scope, sound, troubles[Trouble.CHANGED], troubles[Trouble.GONE], rotted)

    def collect(self) -> Collected:
        """Least recently used first, until the bounds hold; then what nothing refers to."""
        origins = len(self.run(Index.origins))
        entries, size = self.run(Index.totals)
        self.filling.make_room(entries=0, size=0)
        self.run(Index.purge)
        leftovers = self._sweep()
        self.run(Index.compact)
        entries_left, size_left = self.run(Index.totals)
        gone = origins - len(self.run(Index.origins))
        return Collected(self.scope, gone, entries - entries_left, size - size_left, leftovers)

    def _sweep(self) -> int:
        """If nobody writes; otherwise another time."""
        with self.chunks.alone(wait=False) as alone:
            if not alone:
                return 0
            leftovers = self.chunks.sweep()
            for name in list(self.chunks.names()):
                if not self._index.is_kept(name):
                    self.chunks.remove(name)
                    leftovers += 1
            return leftovers

    # -- an index that is of no use ------------------------------------------------------------------------

    def _opened(self) -> Index:
        if self._is_there():
            with suppress(DamagedError):
                return Index(self._path, self.scope)
        return self._anew(None)

    def _is_there(self) -> bool:
        """An empty file is no index: they come into being with all that is in them."""
        return self._path.exists() and self._path.stat().st_size > 0

    def _mend(self, broken: Index) -> None:
        with self._lock:
            if self._index is not broken:
                return
            broken.close()
            try:
                self.chunks.prepare()  # its folder may have been removed
                self._index = self._anew(broken.inode)
            except DamagedError as error:
                raise still_damaged(self._path, str(error)) from error
            except OSError as error:
                raise storage_failed(error) from error

    def _anew(self, broken: int | None) -> Index:
        """Another process may have been quicker: then its is taken."""
        with self.chunks.alone(wait=True):
            with suppress(DamagedError):
                if self._is_there() and (index := Index(self._path, self.scope)).inode != broken:
                    return index
            made = rebuilding.rebuilt(self._path, self.chunks, self.scope, self._now())
            self._tell(made)
            return Index(self._path, self.scope)

    def _tell(self, found: Iterable[Found]) -> None:
        with self._lock:
            self._told += found
            del self._told[:-_TOLD_MOST]

    def _now(self) -> int:
        return int(self._clock.now())
