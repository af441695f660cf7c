"""SQLite files are private from the first moment; connections of one process leave each other their locks."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from korora.adapters.sqlite import connected, transaction

_OTHER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
try:
    database.execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError as error:
    print(error.sqlite_errorname)
else:
    print("begun")
"""


def begun_elsewhere(path: Path) -> str:
    """What another process is told that wants to write."""
    done = subprocess.run(
        [sys.executable, "-c", _OTHER, str(path)], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.strip()


def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(connected(tmp_path / "a.db", waits_s=1)):
            assert (tmp_path / "a.db").stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_another_connection_of_this_process_takes_no_lock_away(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.db"
    with closing(connected(path, waits_s=1)) as first:
        first.execute(f"PRAGMA journal_mode = {mode}")
        first.execute("CREATE TABLE t (x)")
        with transaction(first):
            first.execute("INSERT INTO t VALUES (1)")
            with closing(connected(path, waits_s=1)) as second:
                second.execute("SELECT * FROM t").fetchall()
            assert begun_elsewhere(path) == "SQLITE_BUSY"
        assert begun_elsewhere(path) == "begun"


def test_what_is_no_file_cannot_be_had(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    for path in (tmp_path, tmp_path / "absent" / "a.db", tmp_path / "link"):
        with pytest.raises(OSError):
            connected(path, waits_s=1)


def twice(database: sqlite3.Connection) -> None:
    with transaction(database):
        for _ in range(2):
            database.execute("INSERT INTO t VALUES (1)")


def test_what_fails_in_a_transaction_leaves_nothing(tmp_path: Path) -> None:
    with closing(connected(tmp_path / "a.db", waits_s=1)) as database:
        database.execute("CREATE TABLE t (x UNIQUE)")
        with pytest.raises(sqlite3.IntegrityError):
            twice(database)
        assert database.execute("SELECT count(*) FROM t").fetchone() == (0,)
