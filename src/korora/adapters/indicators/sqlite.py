"""Indicators in one SQLite file, mode 0600.

Promise: an import is there as a whole or not at all. Values are loaded by one query per kind, which reads
nothing of the sources. Limit: one writer at a time; another one waits for ten seconds and is refused then.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from korora.adapters.sqlite import Trouble, connected, transaction, trouble
from korora.errors import ToolError
from korora.model.indicator import Entry, Indicator, Kind, Provenance, Verdict, rank
from korora.ports.indicators import Written

APPLICATION_ID: Final = 0x4B6F7269  # "Kori"
VERSION: Final = 1
SCHEMA: Final = (
    "CREATE TABLE import (id INTEGER PRIMARY KEY, file TEXT NOT NULL, imported_at INTEGER NOT NULL) STRICT",
    # since and until: the widest span in which some source's word may be in force; NULL when there is none.
    """CREATE TABLE indicator (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        value TEXT NOT NULL,
        since INTEGER,
        until INTEGER,
        UNIQUE (kind, value)
    ) STRICT""",
    """CREATE TABLE provenance (
        indicator INTEGER NOT NULL REFERENCES indicator (id),
        source TEXT NOT NULL,
        reference TEXT NOT NULL,
        import INTEGER NOT NULL REFERENCES import (id),
        malicious INTEGER NOT NULL,
        since INTEGER NOT NULL,
        until INTEGER NOT NULL,
        changed INTEGER NOT NULL,
        detail BLOB NOT NULL,
        PRIMARY KEY (indicator, source, reference)
    ) STRICT, WITHOUT ROWID""",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)
_BATCH: Final = 5000
_ALWAYS: Final = 1 << 62
_WRITE_PROVENANCE: Final = """INSERT INTO provenance
    SELECT id, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10 FROM indicator WHERE kind = ?1 AND value = ?2
    ON CONFLICT (indicator, source, reference) DO UPDATE SET import = excluded.import,
        malicious = excluded.malicious, since = excluded.since, until = excluded.until,
        changed = excluded.changed, detail = excluded.detail
    WHERE (excluded.changed, excluded.detail) > (provenance.changed, provenance.detail)"""
_SPANS: Final = """UPDATE indicator SET (since, until) =
    (SELECT min(since), max(until) FROM provenance WHERE indicator = indicator.id AND malicious)
    WHERE id IN (SELECT indicator FROM provenance WHERE import = ?)"""
_ROWS: Final = """SELECT indicator.kind, indicator.value, provenance.detail, import.file, import.imported_at
    FROM indicator JOIN provenance ON provenance.indicator = indicator.id
    JOIN import ON import.id = provenance.import"""
_ORDER: Final = " ORDER BY indicator.kind, indicator.value, provenance.source, provenance.reference"
_Row = tuple[str, str, bytes, str, int]


class SqliteIndicators:
    """Implements `ports.indicators.IndicatorStore`; for one thread."""

    def __init__(self, path: Path) -> None:
        """Open, or make with mode 0600.

        ToolError: `indicator-store-busy`, `indicator-store-damaged` (also: no such store at all),
        `indicator-store` (anything else the storage says).
        """
        self._path = path
        with self._translated():
            self._database = _connected(path)
            try:
                self._prepare()
            except BaseException:
                self._database.close()
                raise

    def write(self, batches: Iterable[Iterable[Entry]]) -> list[Written]:
        with self._translated(), transaction(self._database):
            return [self._batch(batch) for batch in batches]

    def values(self, kind: Kind, now: int) -> list[bytes]:
        query = "SELECT CAST(value AS BLOB) FROM indicator WHERE kind = ? AND since <= ? AND until > ?"
        with self._translated():
            rows = self._database.execute(query, (kind.value, now, now))
            return [value for (value,) in rows]

    def find(self, kind: Kind, value: str) -> Indicator | None:
        query = f"{_ROWS} WHERE indicator.kind = ? AND indicator.value = ?{_ORDER}"
        return next(self._indicators(query, kind.value, value), None)

    def listed(self, kind: Kind | None = None, containing: str = "") -> Iterator[Indicator]:
        query = f"{_ROWS} WHERE (?1 = '' OR indicator.kind = ?1) AND instr(indicator.value, ?2){_ORDER}"
        yield from self._indicators(query, kind.value if kind else "", containing)

    def counts(self) -> dict[Kind, int]:
        with self._translated():
            rows = self._database.execute("SELECT kind, count(*) FROM indicator GROUP BY kind ORDER BY kind")
            return {Kind(kind): count for kind, count in rows}

    def close(self) -> None:
        self._database.close()

    # -- inside ---------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        database = self._database
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA cache_size = -65536")
        with transaction(database):
            if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                for statement in SCHEMA:
                    database.execute(statement)
        application = database.execute("PRAGMA application_id").fetchone()[0]
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if (application, version) != (APPLICATION_ID, VERSION):
            raise self._damaged(f"it is no store of this version (format {version}, not {VERSION})")

    def _batch(self, entries: Iterable[Entry]) -> Written:
        imports: dict[tuple[str, int], int] = {}
        total = new = 0
        for part in _parts(entries):
            rows = [_row(entry, self._import(entry.provenance, imports)) for entry in part]
            before = self._database.total_changes
            self._database.executemany(
                "INSERT OR IGNORE INTO indicator (kind, value) VALUES (?, ?)", [row[:2] for row in rows]
            )
            new += self._database.total_changes - before
            self._database.executemany(_WRITE_PROVENANCE, rows)
            total += len(rows)
        for number in imports.values():
            self._database.execute(_SPANS, (number,))
        return Written(new, total - new)

    def _import(self, provenance: Provenance, known: dict[tuple[str, int], int]) -> int:
        key = (provenance.file, provenance.imported_at)
        if key not in known:
            done = self._database.execute("INSERT INTO import (file, imported_at) VALUES (?, ?)", key)
            known[key] = int(done.lastrowid or 0)
        return known[key]

    def _indicators(self, query: str, *given: object) -> Iterator[Indicator]:
        """Rows of one value follow each other."""
        kind, value, said = "", "", list[Provenance]()
        with self._translated():
            for row in self._database.execute(query, given):
                if said and (row[0], row[1]) != (kind, value):
                    yield Indicator(Kind(kind), value, tuple(said))
                    said = []
                kind, value = row[0], row[1]
                said.append(self._provenance(row))
        if said:
            yield Indicator(Kind(kind), value, tuple(said))

    def _provenance(self, row: _Row) -> Provenance:
        try:
            told = msgspec.json.decode(row[2], type=Provenance)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise self._damaged(f"what a source says of {row[1][:80]!r} cannot be read") from error
        return msgspec.structs.replace(told, file=row[3], imported_at=row[4])

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _failure(self, error: sqlite3.Error) -> ToolError:
        match trouble(error):
            case Trouble.BUSY:
                return ToolError(
                    f"another process writes the indicators {self._path}",
                    kind="indicator-store-busy",
                    remedy="wait until its import is done, then try again",
                )
            case Trouble.DAMAGED:
                return self._damaged(str(error))
            case Trouble.OTHER:
                return ToolError(
                    f"the indicators {self._path} cannot be used: {error}",
                    kind="indicator-store",
                    remedy="mend the storage (space, permissions, disk), or name another file: --store FILE",
                )

    def _damaged(self, finding: str) -> ToolError:
        return ToolError(
            f"the indicators {self._path} cannot be used: {finding}",
            kind="indicator-store-damaged",
            remedy="name another file (--store FILE), or move it away and import the sources again",
        )


def _connected(path: Path) -> sqlite3.Connection:
    try:
        return connected(path, waits_s=10.0, threads=True)  # files inside of a disk pass by in a thread
    except OSError as error:
        raise ToolError(
            f"the indicators {path} cannot be opened: {error.strerror}",
            kind="indicator-store",
            remedy="make the folder, or name another file: --store FILE",
        ) from error


def _parts(entries: Iterable[Entry]) -> Iterator[Sequence[Entry]]:
    part: list[Entry] = []
    for entry in entries:
        part.append(entry)
        if len(part) >= _BATCH:
            yield part
            part = []
    if part:
        yield part


def _row(entry: Entry, number: int) -> tuple[Any, ...]:
    said = entry.provenance
    malicious = said.verdict is Verdict.MALICIOUS and not said.revoked
    changed, detail = rank(said)
    return (
        *(entry.kind.value, entry.value, said.source, said.reference, number, int(malicious)),
        said.valid_from or 0,
        _ALWAYS if said.expires is None else said.expires,
        *(changed, detail),
    )
