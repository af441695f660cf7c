"""The index of one scope, in SQLite: asked for parts by name, told of origins, bounded.

Promise: an index that cannot be read is DamagedError, never an answer; readers do not wait for writers (WAL).
Memory: SQLite's caches, at most 96 MiB. Limit: knows no bytes; what it says is a hint until compared.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from korora.adapters import sqlite
from korora.adapters.store.failing import DamagedError, LostError
from korora.adapters.store.lines import NOTES_WAIT_S, WRITERS_WAIT_S, Line
from korora.adapters.store.notes import Notes
from korora.adapters.store.schema import APPLICATION_ID, STATEMENTS, TABLES, VERSION
from korora.model.stored import Kind, Origin, Scope

_KEY_BYTES: Final = 8
_ASKED_AT_ONCE: Final = 4096
_PAGES_AT_ONCE: Final = 4096
_SLICE: Final = 1 << 58
"""Of all keys, a 64th."""
_ORIGIN: Final = "SELECT number, kind, path, entries, size, used_at FROM origin"
_PART: Final = (int, int, int, int)
_FIND: Final = """SELECT part.key, part.origin, part.place, part.length
    FROM json_each(?) AS wanted CROSS JOIN part ON part.key = wanted.value"""


Hint: TypeAlias = tuple[int, int, int, bytes]
"""Where a part is said to be: (origin, place, length, its name). Plain, for there are many."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A file that parts are in."""

    path: Path
    device: int
    inode: int


def key_of(name: bytes) -> int:
    return int.from_bytes(name[:_KEY_BYTES], "big", signed=True)


class Index:
    """For several threads, one at a time."""

    def __init__(self, path: Path, scope: Scope) -> None:
        """Open, or make. DamagedError for a file that is no index of this version."""
        self._path, self._scope = path, scope
        with ExitStack() as undone:
            self._writing = self._line(WRITERS_WAIT_S, undone)
            self._prepare()
            self._asking = self._line(WRITERS_WAIT_S, undone)
            self.notes = Notes(self._line(NOTES_WAIT_S, undone))
            self.inode = path.stat().st_ino
            undone.pop_all()

    def close(self) -> None:
        self.notes.close()
        self._asking.close()
        self._writing.close()

    # -- asked -----------------------------------------------------------------------------------------------

    def find(self, names: Sequence[bytes]) -> list[Hint]:
        """Where parts of these names are said to be, those of one name together.

        Some may be of another name with the same key. Of names with one key among these, one is looked for.
        """
        by_key = {key_of(name): name for name in names}
        found: list[Hint] = []
        keys = list(by_key)
        for at in range(0, len(keys), _ASKED_AT_ONCE):
            rows = self.all(_PART, _FIND, json.dumps(keys[at : at + _ASKED_AT_ONCE]))
            found += [(origin, place, length, by_key[key]) for key, origin, place, length in rows]
        return found

    def reference(self, origin: int) -> Reference | None:
        """None for what is kept, and for an origin that is not there any more."""
        query = "SELECT path, device, inode FROM origin WHERE number = ? AND kind != ?"
        for path, device, inode in self.all((bytes, int, int), query, origin, Kind.KEPT.value):
            return Reference(Path(os.fsdecode(path)), device, inode)
        return None

    def kept(self, origin: int, number: int) -> bytes | None:
        """The name of an own copy of that origin."""
        rows = self.all((bytes,), "SELECT name FROM kept WHERE number = ? AND origin = ?", number, origin)
        return rows[0][0] if rows else None

    def is_kept(self, name: bytes) -> bool:
        return bool(self.all((int,), "SELECT 1 FROM kept WHERE name = ? LIMIT 1", name))

    def origins(self) -> list[Origin]:
        rows = self.all((int, str, bytes, int, int, int), f"{_ORIGIN} ORDER BY used_at DESC, number DESC")
        try:
            return [
                Origin(self._scope, number, Kind(kind), Path(os.fsdecode(path)), entries, size, used)
                for number, kind, path, entries, size, used in rows
            ]
        except ValueError as error:
            raise DamagedError(str(error)) from error

    def totals(self) -> tuple[int, int]:
        """Entries, and bytes kept."""
        [(entries, size)] = self.all(
            (int, int), "SELECT coalesce(sum(entries), 0), coalesce(sum(size), 0) FROM origin"
        )
        return entries, size

    def parts(self, origin: int) -> Iterator[list[tuple[int, int, int]]]:
        """(key, place, length), some at a time, of an origin that is not added to meanwhile."""
        after = -(1 << 63)
        query = """SELECT key, place, length FROM part WHERE origin = ? AND key >= ?
            ORDER BY key LIMIT 20000"""
        while rows := self.all(_PART, query, origin, after):
            yield rows
            if rows[-1][0] == (1 << 63) - 1:
                return
            after = rows[-1][0] + 1

    def counters(self) -> dict[str, int]:
        return dict(self.all((str, int), "SELECT what, count FROM counter"))

    def problem(self) -> str | None:
        """What contradicts itself in the file."""
        [(said,)] = self.all((str,), "PRAGMA quick_check(1)")
        return None if said == "ok" else str(said)

    # -- told ------------------------------------------------------------------------------------------------

    def begin(self, kind: Kind, path: Path, device: int, inode: int, now: int) -> int:
        """A new origin, without parts yet."""
        query = (
            "INSERT INTO origin (kind, path, device, inode, entries, size, used_at) VALUES (?,?,?,?,0,0,?)"
        )
        with self._writing.used() as database:
            done = database.execute(query, (kind.value, os.fsencode(path), device, inode, now))
            return int(done.lastrowid or 0)

    def add(self, origin: int, parts: Iterable[tuple[bytes, int, int]]) -> int:
        """(name, place, length) of each; returns how many were new in that origin."""
        rows = sorted((key_of(name), origin, place, length) for name, place, length in parts)
        with self._writing.transaction() as database:
            before = database.total_changes
            database.executemany("INSERT OR IGNORE INTO part VALUES (?, ?, ?, ?)", rows)
            new = database.total_changes - before
            _update(database, "UPDATE origin SET entries = entries + ? WHERE number = ?", new, origin)
        return new

    def add_kept(self, origin: int, name: bytes, length: int) -> int:
        """The own copy's number."""
        with self._writing.transaction() as database:
            done = database.execute(
                "INSERT INTO kept (origin, name, length) VALUES (?, ?, ?)", (origin, name, length)
            )
            _update(database, "UPDATE origin SET size = size + ? WHERE number = ?", length, origin)
            return int(done.lastrowid or 0)

    def forget(self, origins: Sequence[int]) -> list[bytes]:
        """Without their parts: see `purge`. Returns the names of copies that nobody has any more."""
        numbers = [(one,) for one in origins]
        with self._writing.transaction() as database:
            names = set()
            for number in numbers:
                query = "DELETE FROM kept WHERE origin = ? RETURNING name"
                names |= {name for (name,) in database.execute(query, number).fetchall()}
            database.executemany("DELETE FROM origin WHERE number = ?", numbers)
        return [name for name in names if not self.is_kept(name)]

    def purge(self) -> None:
        """Parts of origins that are not there any more; a slice at a time, so that other writers go on."""
        query = "DELETE FROM part WHERE key BETWEEN ? AND ? AND origin NOT IN (SELECT number FROM origin)"
        for first in range(-(1 << 63), 1 << 63, _SLICE):
            with self._writing.used() as database:
                database.execute(query, (first, first + _SLICE - 1))

    def compact(self) -> None:
        """Give unused pages back; as much as can be done without waiting for readers."""
        while True:
            with self._writing.used() as database:
                [(free,)] = database.execute("PRAGMA freelist_count").fetchall()
                if free:
                    database.execute(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})").fetchall()
            if free <= _PAGES_AT_ONCE:
                break
        with self._writing.used() as database:
            database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def checkpoint(self) -> None:
        """All of it into the one file."""
        with self._writing.used() as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    # -- inside ----------------------------------------------------------------------------------------------

    def all(self, types: Sequence[type], query: str, *given: object) -> list[Any]:
        """All rows. DamagedError unless their columns have these types: a damaged file can have others."""
        with self._asking.used() as database:
            rows = database.execute(query, given).fetchall()
        for column, kind in zip(zip(*rows, strict=True), types, strict=False):
            if not {*map(type, column)} <= {kind}:
                raise DamagedError("it has a value of another type than it was given")
        return rows

    def check_is_current(self) -> None:
        """DamagedError when the file that is open here is not the index any more."""
        with suppress(FileNotFoundError):
            if self._path.stat().st_ino == self.inode:
                return
        raise DamagedError("another index is in its place")

    def _prepare(self) -> None:
        """Nothing is written to one that is there: who only asks waits for nobody."""
        with self._writing.used() as database:
            if database.execute("PRAGMA page_count").fetchone()[0] == 0:
                database.execute("PRAGMA auto_vacuum = INCREMENTAL")
                database.execute("PRAGMA journal_mode = WAL")
                with sqlite.transaction(database):
                    for statement in STATEMENTS:
                        database.execute(statement)
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("PRAGMA journal_size_limit = 67108864")
            query = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"
            written = {sql for (sql,) in database.execute(query)}
            named = [
                database.execute(f"PRAGMA {one}").fetchone()[0] for one in ("application_id", "user_version")
            ]
        if named != [APPLICATION_ID, VERSION] or not written >= set(TABLES):
            raise DamagedError(f"it is no index of this version ({VERSION})")

    def _line(self, waits_s: float, undone: ExitStack) -> Line:
        line = Line(self._path, waits_s)
        undone.callback(line.close)
        return line


def _update(database: sqlite3.Connection, query: str, *given: int) -> None:
    if database.execute(query, given).rowcount != 1:
        raise LostError
