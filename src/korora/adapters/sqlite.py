"""What all our SQLite files have in common: private, whole transactions, and why one cannot be used.

Promise: a file is made readable for its owner alone before SQLite sees it. Limit: what a failure means for
whoever keeps the file, and what to do, is the adapter's to say.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path


class Trouble(StrEnum):
    BUSY = "busy"  # another process has it
    DAMAGED = "damaged"
    OTHER = "other"  # the storage below


def connected(path: Path, *, waits_s: float, threads: bool = False) -> sqlite3.Connection:
    """Open, or make with mode 0600; each statement is a transaction, unless one was begun.

    OSError when the file cannot be had. `threads`: several may use it, one at a time.
    """
    _make(path)
    return sqlite3.connect(path, timeout=waits_s, isolation_level=None, check_same_thread=not threads)


def _make(path: Path) -> None:
    """If it is not there. One that is there is not opened: to close it would take away the locks that another
    connection of this process holds on it (fcntl(2), "Advisory record locking"), and two would write at once.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if not stat.S_ISREG(path.stat().st_mode):
            raise IsADirectoryError(errno.EISDIR, "it is no file", str(path)) from None
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path)) from None


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def trouble(error: sqlite3.Error) -> Trouble:
    match getattr(error, "sqlite_errorname", ""):
        case "SQLITE_BUSY" | "SQLITE_LOCKED":
            return Trouble.BUSY
        case "SQLITE_NOTADB" | "SQLITE_CORRUPT":
            return Trouble.DAMAGED
        case _:
            return Trouble.OTHER
