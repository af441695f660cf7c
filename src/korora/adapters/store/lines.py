"""A connection to an index, for several threads, one at a time; what fails is translated at its edge.

An index has three: one that asks and waits for no writer, one that writes, and one for notes that a reader
makes on its way, which are not worth a wait.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from korora.adapters import sqlite
from korora.adapters.store.failing import index_failed, index_unusable

WRITERS_WAIT_S: Final = 10.0
NOTES_WAIT_S: Final = 0.1
_CACHE_KIB: Final = 32768


class Line:
    """Memory: SQLite's cache, at most 32 MiB."""

    def __init__(self, path: Path, waits_s: float) -> None:
        """Open, or make. `waits_s`: for another one that writes."""
        self._path = path
        self._lock = threading.Lock()
        with self._translated():
            self._database = sqlite.connected(path, waits_s=waits_s, threads=True)
            try:
                self._database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            except BaseException:
                self._database.close()
                raise

    @contextmanager
    def used(self) -> Iterator[sqlite3.Connection]:
        """DamagedError, or ToolError(kind="store-busy" | "store-index")."""
        with self._lock, self._translated():
            yield self._database

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing."""
        with self.used() as database, sqlite.transaction(database):
            yield database

    def close(self) -> None:
        with self._lock:
            self._database.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeError, OverflowError) as error:
            raise index_failed(self._path, error) from error
        except OSError as error:
            raise index_unusable(self._path, error.strerror or str(error)) from error
