"""A host's content store: a folder for each scope, below one that only its owner may enter.

Promise: a question of one tenant opens that tenant's folder and the shared one, and no other.
Limit: for the threads of one process and for several processes, on one host.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from korora.adapters.store.failing import storage_failed
from korora.adapters.store.pinning import Held
from korora.adapters.store.shelf import Shelf
from korora.errors import ToolError
from korora.model.stored import (
    SHARED,
    Added,
    Bounds,
    Collected,
    Located,
    Origin,
    Scope,
    Stat,
    TenantName,
    Verified,
    scope_in,
)
from korora.ports.clock import Clock, SystemClock
from korora.ports.content_store import Pins

_log = structlog.get_logger(__name__)


class FolderStore:
    """Implements `ports.content_store.ContentStore`."""

    def __init__(self, folder: Path, bounds: Bounds, clock: Clock | None = None) -> None:
        """Make the folder if it is not there. ToolError(kind="store-files")."""
        self._folder, self._bounds, self._clock = folder, bounds, clock or SystemClock()
        self._shelves: dict[Scope, Shelf] = {}
        self._locks: dict[Scope, threading.Lock] = {}  # one each: no tenant waits for another's
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise storage_failed(error) from error

    def refer(self, scope: Scope, path: Path, parts: Iterable[Located], *, learnt: bool = False) -> Added:
        return self._made(scope).filling.refer(path, parts, learnt=learnt)

    def keep(self, scope: Scope, path: Path, chunks: Iterable[bytes | bytearray | memoryview]) -> Added:
        return self._made(scope).filling.keep(path, chunks)

    @contextmanager
    def pins(self, tenant: TenantName | None, room: int) -> Iterator[Pins]:
        own = [] if tenant is None else [Scope(tenant)]
        yield Held([shelf for scope in (*own, SHARED) if (shelf := self._usable(scope)) is not None], room)

    def stat(self) -> list[Stat]:
        return [shelf.stat() for shelf in self._all()]

    def origins(self, scope: Scope) -> list[Origin]:
        shelf = self._there(scope)
        return [] if shelf is None else shelf.origins()

    def verify(self, scope: Scope) -> Verified:
        shelf = self._there(scope)
        return Verified(scope, 0, 0, 0, ()) if shelf is None else shelf.verify()

    def collect(self, scope: Scope) -> Collected:
        shelf = self._there(scope)
        return Collected(scope, 0, 0, 0, 0) if shelf is None else shelf.collect()

    def forget(self, scope: Scope, number: int) -> bool:
        shelf = self._there(scope)
        return shelf is not None and shelf.forget(number)

    def close(self) -> None:
        for scope, lock in list(self._locks.items()):
            with lock:
                if (shelf := self._shelves.pop(scope, None)) is not None:
                    shelf.close()

    def _all(self) -> Iterator[Shelf]:
        try:
            folders = [one.name for one in self._folder.iterdir()]
        except OSError as error:
            raise storage_failed(error) from error
        for scope in sorted(filter(None, map(scope_in, folders)), key=lambda one: one.folder):
            if (shelf := self._there(scope)) is not None:
                yield shelf

    def _usable(self, scope: Scope) -> Shelf | None:
        """None also where the storage fails: no reason to stop a migration."""
        try:
            return self._there(scope)
        except ToolError as error:
            _log.warning("content store", scope=str(scope), kind=error.kind, problem=error.message)
            return None

    def _there(self, scope: Scope) -> Shelf | None:
        """None, and nothing is made, if nothing was ever put there."""
        known = self._shelves.get(scope)
        return self._made(scope) if known or (self._folder / scope.folder).is_dir() else None

    def _made(self, scope: Scope) -> Shelf:
        with self._lock_of(scope):
            if scope not in self._shelves:
                folder = self._folder / scope.folder
                try:
                    self._shelves[scope] = Shelf(folder, scope, self._bounds, self._clock)
                except OSError as error:
                    raise storage_failed(error) from error
            return self._shelves[scope]

    def _lock_of(self, scope: Scope) -> threading.Lock:
        return self._locks.setdefault(scope, threading.Lock())  # atomic, as dicts are
