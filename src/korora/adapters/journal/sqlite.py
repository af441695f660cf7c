"""The journal in one SQLite file.

Promise: what a method wrote is on stable storage when it returns, and after a crash at any instruction the
file holds every write that returned and no part of one that did not. One process at a time: a second one
is refused while the first lives. Limit: it trusts the disk to mean it when it says "synced", and a file
rolled back as a whole by somebody with root is found only by comparing tree heads with another host.

Source for the durability: sqlite.org/wal.html and pragma.html#pragma_synchronous (WAL with FULL syncs the
log at every commit).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any

from korora.adapters.durable import sync_folder
from korora.adapters.journal.schema import APPLICATION_ID, SCHEMA, VERSION
from korora.adapters.sqlite import Trouble, connected, transaction, trouble
from korora.errors import ToolError
from korora.model.identity import SessionId, VmName
from korora.model.question import QuestionId
from korora.ports.journal import QuestionRecord, SessionRecord, VmRecord
from korora.protocol.merkle import completed_by, leaf_hash

_VM = "SELECT name, definition, ownership, epoch, session, peer, qmp_socket FROM vm"
_SESSION = "SELECT session, vm, role, peer, phase, outcome, detail FROM session"
_WRITE_VM = """INSERT OR REPLACE INTO vm (name, definition, ownership, epoch, session, peer, qmp_socket)
    VALUES (?, ?, ?, ?, ?, ?, ?)"""
# Not REPLACE: a session keeps its place in the order.
_WRITE_SESSION = """INSERT INTO session (session, vm, role, peer, phase, outcome, detail)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (session) DO UPDATE SET vm = excluded.vm, role = excluded.role, peer = excluded.peer,
        phase = excluded.phase, outcome = excluded.outcome, detail = excluded.detail"""

_WRITE_QUESTION = """INSERT INTO question (id, stage, detail) VALUES (?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET stage = excluded.stage, detail = excluded.detail"""


class SqliteJournal:
    """Implements `ports.journal.Journal`; may be called from any thread, one call at a time proceeds."""

    def __init__(self, path: Path) -> None:
        """Open, or make with mode 0600.

        ToolError: `journal-locked` (another process has it), `journal-version` (written by a newer Korora,
        or not a journal), `journal-damaged`, `journal` (anything else the storage says).
        """
        self._path = path
        self._lock = threading.Lock()
        with self._translated():
            self._database = _connected(path)
        try:
            with self._translated():
                self._prepare()
        except BaseException:
            self._database.close()
            raise

    def vm(self, name: VmName) -> VmRecord | None:
        rows = self._read(f"{_VM} WHERE name = ?", name)
        return VmRecord(*rows[0]) if rows else None

    def vms(self) -> list[VmRecord]:
        return [VmRecord(*row) for row in self._read(f"{_VM} ORDER BY name")]

    def write_vm(self, record: VmRecord) -> None:
        self._write(_WRITE_VM, *astuple(record))

    def forget_vm(self, name: VmName) -> None:
        self._write("DELETE FROM vm WHERE name = ?", name)

    def session(self, session: SessionId) -> SessionRecord | None:
        rows = self._read(f"{_SESSION} WHERE session = ?", session)
        return SessionRecord(*rows[0]) if rows else None

    def sessions(self) -> list[SessionRecord]:
        return [SessionRecord(*row) for row in self._read(f"{_SESSION} ORDER BY number")]

    def write_session(self, record: SessionRecord) -> None:
        self._write(_WRITE_SESSION, *astuple(record))

    def spend_nonce(self, nonce: str, not_after: int) -> bool:
        # An expired nonce is kept too: forgetting it would trust the clock never to go back.
        return bool(self._write("INSERT OR IGNORE INTO nonce VALUES (?, ?)", nonce, not_after))

    def question(self, question: QuestionId) -> QuestionRecord | None:
        rows = self._read("SELECT id, stage, detail FROM question WHERE id = ?", question)
        return QuestionRecord(*rows[0]) if rows else None

    def questions(self, stage: str) -> list[QuestionRecord]:
        rows = self._read("SELECT id, stage, detail FROM question WHERE stage = ? ORDER BY number", stage)
        return [QuestionRecord(*row) for row in rows]

    def count_questions(self, stage: str) -> int:
        return int(self._read("SELECT count(*) FROM question WHERE stage = ?", stage)[0][0])

    def write_question(self, record: QuestionRecord) -> None:
        self._write(_WRITE_QUESTION, *astuple(record))

    def append_log(self, leaf: bytes) -> int:
        with self._transaction() as database:
            known = database.execute(
                "SELECT position FROM node WHERE level = 0 AND hash = ?", (leaf_hash(leaf),)
            ).fetchone()
            if known:
                return int(known[0])
            index = _log_size(database)
            database.execute("INSERT INTO leaf VALUES (?, ?)", (index, leaf))
            nodes = completed_by(index, leaf, lambda level, position: _node(database, level, position))
            database.executemany("INSERT INTO node VALUES (?, ?, ?)", nodes)
        return index

    def log(self) -> list[bytes]:
        return [row[0] for row in self._read("SELECT content FROM leaf ORDER BY number")]

    def log_size(self) -> int:
        with self._translated(), self._lock:
            return _log_size(self._database)

    def log_node(self, level: int, index: int) -> bytes:
        with self._translated(), self._lock:
            return _node(self._database, level, index)

    def close(self) -> None:
        """Idempotent. Everything is on disk already."""
        with self._lock:
            self._database.close()

    def _prepare(self) -> None:
        database = self._database
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("BEGIN EXCLUSIVE")
        if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            for statement in SCHEMA:
                database.execute(statement)
        database.execute("COMMIT")
        self._check()
        sync_folder(self._path.parent)

    def _check(self) -> None:
        application = self._database.execute("PRAGMA application_id").fetchone()[0]
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION_ID or version != VERSION:
            raise ToolError(
                f"{self._path} is not a journal of this version of Korora (format {version}, not {VERSION})",
                kind="journal-version",
                remedy="start the version of Korora that wrote it, or the daemon on another state folder",
            )
        finding = self._database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if finding != "ok":
            raise self._damaged(finding)

    def _read(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._translated(), self._lock:
            return self._database.execute(query, values).fetchall()

    def _write(self, statement: str, *values: object) -> int:
        """Run one statement durably; returns how many rows it changed."""
        with self._transaction() as database:
            return database.execute(statement, values).rowcount

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._translated(), self._lock, transaction(self._database):
            yield self._database

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
                    f"another process uses the journal {self._path}",
                    kind="journal-locked",
                    remedy="one daemon per state folder: end the other one, or give this one its own folder",
                )
            case Trouble.DAMAGED:
                return self._damaged(str(error))
            case Trouble.OTHER:
                return ToolError(
                    f"the journal {self._path} cannot be used: {error}",
                    kind="journal",
                    remedy="mend the storage (space, permissions, disk) and start the daemon again",
                )

    def _damaged(self, finding: str) -> ToolError:
        return ToolError(
            f"the journal {self._path} is damaged: {finding}",
            kind="journal-damaged",
            remedy="restore the disk it lies on; start no VM of this host before its owner is known",
        )


def _connected(path: Path) -> sqlite3.Connection:
    try:
        return connected(path, waits_s=1.0, threads=True)
    except OSError as error:
        raise ToolError(
            f"the journal {path} cannot be opened: {error.strerror}",
            kind="journal",
            remedy="make the state folder, owned and writable by the daemon's user",
        ) from error


def _log_size(database: sqlite3.Connection) -> int:
    return int(database.execute("SELECT coalesce(max(number) + 1, 0) FROM leaf").fetchone()[0])


def _node(database: sqlite3.Connection, level: int, index: int) -> bytes:
    query = "SELECT hash FROM node WHERE level = ? AND position = ?"
    row = database.execute(query, (level, index)).fetchone()
    if row is None:
        raise KeyError((level, index))
    return bytes(row[0])
