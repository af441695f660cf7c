"""The index of one scope, in SQLite: asked for parts by name, told of origins, bounded.

Promise: an index that cannot be read is DamagedError, never an answer; readers do not wait for writers (WAL).
Memory: SQLite's cache, at most 32 MiB. Limit: knows no bytes; what it says is a hint until somebody compared.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from korora.adapters import sqlite
from korora.adapters.store.failing import DamagedError, LostError, index_failed, index_unusable
from korora.adapters.store.schema import APPLICATION_ID, STATEMENTS, VERSION
from korora.model.stored import Kind, Origin, Scope, Trouble

_KEY_BYTES: Final = 8
_ASKED_AT_ONCE: Final = 4096
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
        self._lock = threading.RLock()
        with self._translated():
            self._database = sqlite.connected(path, waits_s=10.0, threads=True)
            try:
                self._prepare()
                self.inode = path.stat().st_ino
            except BaseException:
                self._database.close()
                raise

    def close(self) -> None:
        with self._lock:
            self._database.close()

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
        query = "SELECT path, device, inode FROM origin WHERE number = ? AND kind = ?"
        for path, device, inode in self.all((bytes, int, int), query, origin, Kind.REFERENCE.value):
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
        with self._translated():
            done = self._database.execute(query, (kind.value, os.fsencode(path), device, inode, now))
            return int(done.lastrowid or 0)

    def add(self, origin: int, parts: Iterable[tuple[bytes, int, int]]) -> int:
        """(name, place, length) of each; returns how many were new in that origin."""
        rows = sorted((key_of(name), origin, place, length) for name, place, length in parts)
        with self._translated(), sqlite.transaction(self._database):
            before = self._database.total_changes
            self._database.executemany("INSERT OR IGNORE INTO part VALUES (?, ?, ?, ?)", rows)
            new = self._database.total_changes - before
            self._update("UPDATE origin SET entries = entries + ? WHERE number = ?", new, origin)
        return new

    def add_kept(self, origin: int, name: bytes, length: int) -> int:
        """The own copy's number."""
        with self._translated(), sqlite.transaction(self._database):
            done = self._database.execute(
                "INSERT INTO kept (origin, name, length) VALUES (?, ?, ?)", (origin, name, length)
            )
            self._update("UPDATE origin SET size = size + ? WHERE number = ?", length, origin)
            return int(done.lastrowid or 0)

    def drop_kept(self, name: bytes) -> None:
        """Of every origin. Its parts are dropped where they are met."""
        with self._translated(), sqlite.transaction(self._database):
            rows = self._database.execute(
                "DELETE FROM kept WHERE name = ? RETURNING length, origin", (name,)
            ).fetchall()
            self._database.executemany("UPDATE origin SET size = size - ? WHERE number = ?", rows)

    def drop(self, parts: Iterable[tuple[int, int]]) -> None:
        """(key, origin) of each."""
        with self._translated(), sqlite.transaction(self._database):
            for key, origin in parts:
                done = self._database.execute("DELETE FROM part WHERE key = ? AND origin = ?", (key, origin))
                self._database.execute(
                    "UPDATE origin SET entries = entries - ? WHERE number = ?", (done.rowcount, origin)
                )

    def forget(self, origins: Sequence[int]) -> list[bytes]:
        """With all their parts. Returns the names of copies that nobody has any more."""
        listed = json.dumps(list(origins))
        with self._translated(), sqlite.transaction(self._database):
            mine = "SELECT value FROM json_each(?)"
            names = {
                name
                for (name,) in self._database.execute(
                    f"DELETE FROM kept WHERE origin IN ({mine}) RETURNING name",  # noqa: S608
                    (listed,),
                ).fetchall()
            }
            self._database.execute(f"DELETE FROM origin WHERE number IN ({mine})", (listed,))  # noqa: S608
            # Also of origins that ended otherwise.
            self._database.execute("DELETE FROM part WHERE origin NOT IN (SELECT number FROM origin)")
            return [name for name in names if not self.is_kept(name)]

    def lose(self, origin: int) -> bool:
        """Quickly: its parts are dropped where they are met, or by `forget`. Whether it was there."""
        with self._translated():
            done = self._database.execute("DELETE FROM origin WHERE number = ?", (origin,))
            return done.rowcount > 0

    def use(self, origins: Iterable[int], now: int) -> None:
        with self._translated(), sqlite.transaction(self._database):
            self._database.executemany(
                "UPDATE origin SET used_at = max(used_at, ?) WHERE number = ?",
                [(now, one) for one in origins],
            )

    def count(self, trouble: Trouble, more: int = 1) -> None:
        query = """INSERT INTO counter VALUES (?1, ?2)
            ON CONFLICT (what) DO UPDATE SET count = count + excluded.count"""
        with self._translated():
            self._database.execute(query, (trouble.value, more))

    def compact(self) -> None:
        """Give unused pages back; as much as can be done without waiting for readers."""
        with self._translated():
            self._database.execute("PRAGMA incremental_vacuum").fetchall()
            self._database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def checkpoint(self) -> None:
        """All of it into the one file."""
        with self._translated():
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    # -- inside ----------------------------------------------------------------------------------------------

    def all(self, types: Sequence[type], query: str, *given: object) -> list[Any]:
        """All rows. DamagedError unless their columns have these types: a damaged file can have others."""
        with self._translated():
            rows = self._database.execute(query, given).fetchall()
        for column, kind in zip(zip(*rows, strict=True), types, strict=False):
            if not {*map(type, column)} <= {kind}:
                raise DamagedError("it has a value of another type than it was given")
        return rows

    def _update(self, query: str, *given: int) -> None:
        if self._database.execute(query, given).rowcount != 1:
            raise LostError

    def check_is_current(self) -> None:
        """DamagedError when the file that is open here is not the index any more."""
        with suppress(FileNotFoundError):
            if self._path.stat().st_ino == self.inode:
                return
        raise DamagedError("another index is in its place")

    def _prepare(self) -> None:
        database = self._database
        if database.execute("PRAGMA page_count").fetchone()[0] == 0:
            database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA cache_size = -32768")
        database.execute("PRAGMA journal_size_limit = 67108864")
        with sqlite.transaction(database):
            if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                for statement in STATEMENTS:
                    database.execute(statement)
        written = {sql for (sql,) in database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}
        if not written >= {one for one in STATEMENTS if one.startswith("CREATE")}:
            raise DamagedError("it has not the tables of an index")
        application = database.execute("PRAGMA application_id").fetchone()[0]
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if (application, version) != (APPLICATION_ID, VERSION):
            raise DamagedError(f"it is no index of this version (format {version}, not {VERSION})")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except (sqlite3.Error, UnicodeError, OverflowError) as error:
                raise index_failed(self._path, error) from error
            except OSError as error:
                raise index_unusable(self._path, error.strerror or str(error)) from error
