"""The journal's file: killed writers, second daemons, foreign and damaged files."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from korora.adapters.journal.schema import VERSION
from korora.adapters.journal.sqlite import SqliteJournal
from korora.errors import ToolError
from korora.model.identity import VmName
from korora.ports.journal import VmRecord
from korora.protocol.merkle import root, root_of

WRITER = """
import sys
from pathlib import Path
from korora.adapters.journal.sqlite import SqliteJournal
journal = SqliteJournal(Path(sys.argv[1]))
number = 0
while True:
    journal.append_log(b"leaf %d" % number)
    assert journal.spend_nonce(f"nonce {number}", 1)
    print(number, flush=True)
    number += 1
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[SqliteJournal]:
    opened = SqliteJournal(path)
    yield opened
    opened.close()


def test_everything_acknowledged_is_there_after_a_kill(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": "src"},
    ) as writer:
        assert writer.stdout is not None
        for _ in range(20):
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        last = max([last, *map(int, writer.stdout.read().split())])
    journal = SqliteJournal(path)
    leaves = journal.log()
    assert len(leaves) - 1 in (last, last + 1)
    assert leaves == [b"leaf %d" % number for number in range(len(leaves))]
    assert root(len(leaves), journal.log_node) == root_of(leaves)
    assert not journal.spend_nonce(f"nonce {last}", 1)
    journal.close()


def test_writes_are_synced_before_they_return(journal: SqliteJournal) -> None:
    def pragma(name: str) -> object:
        return journal._database.execute(f"PRAGMA {name}").fetchone()[0]

    assert (pragma("journal_mode"), pragma("synchronous")) == ("wal", 2)


def test_only_the_owner_may_read_it(path: Path, journal: SqliteJournal) -> None:
    journal.spend_nonce("a", 1)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_second_daemon_on_the_same_journal_is_refused(path: Path, journal: SqliteJournal) -> None:
    with pytest.raises(ToolError) as caught:
        SqliteJournal(path)
    assert caught.value.kind == "journal-locked"
    assert journal.spend_nonce("still usable", 1)


@pytest.mark.parametrize("pragma", [f"user_version = {VERSION + 1}", "application_id = 1"])
def test_a_journal_of_another_version_or_program_is_refused_untouched(path: Path, pragma: str) -> None:
    SqliteJournal(path).close()
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA {pragma}")
    database.close()
    before = path.read_bytes()
    with pytest.raises(ToolError) as caught:
        SqliteJournal(path)
    assert caught.value.kind == "journal-version"
    assert path.read_bytes() == before


def test_a_damaged_file_is_refused_with_a_remedy(path: Path) -> None:
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(ToolError) as caught:
        SqliteJournal(path)
    assert caught.value.kind == "journal-damaged"
    assert caught.value.remedy


def test_a_truncated_file_is_refused(path: Path) -> None:
    journal = SqliteJournal(path)
    for number in range(200):
        journal.append_log(bytes(200) + b"%d" % number)
    journal.close()
    path.write_bytes(path.read_bytes()[: 5 * 4096])
    with pytest.raises(ToolError) as caught:
        SqliteJournal(path)
    assert caught.value.kind == "journal-damaged"


def test_a_missing_folder_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="No such file") as caught:
        SqliteJournal(tmp_path / "none" / "journal.db")
    assert caught.value.remedy


def test_the_file_itself_refuses_to_change_the_log(path: Path, journal: SqliteJournal) -> None:
    journal.append_log(b"a")
    journal.close()
    with sqlite3.connect(path) as database:
        for statement in ("UPDATE leaf SET content = x'62'", "DELETE FROM leaf", "DELETE FROM node"):
            with pytest.raises(sqlite3.IntegrityError, match="only grows"):
                database.execute(statement)
    database.close()


def test_a_failed_write_leaves_nothing_and_the_next_one_works(journal: SqliteJournal) -> None:
    with pytest.raises(ToolError):
        journal.write_vm(VmRecord(VmName("web"), None, "owner", 1))  # type: ignore[arg-type]
    assert journal.vms() == []
    journal.write_vm(VmRecord(VmName("web"), "", "owner", 1))
    assert len(journal.vms()) == 1


def test_a_full_disk_is_an_error_and_keeps_what_was_there(journal: SqliteJournal) -> None:
    journal.append_log(b"first")
    pages = journal._database.execute("PRAGMA page_count").fetchone()[0]
    journal._database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(ToolError, match="full"):
        journal.append_log(bytes(1024 * 1024))
    assert journal.log() == [b"first"]
    journal._database.execute("PRAGMA max_page_count = 1000000")
    assert journal.append_log(b"second") == 1


def test_threads_take_turns(journal: SqliteJournal) -> None:
    with ThreadPoolExecutor(8) as pool:
        indexes = list(pool.map(lambda number: journal.append_log(b"%d" % number), range(100)))
        fresh = list(pool.map(lambda _: journal.spend_nonce("same", 1), range(20)))
    assert sorted(indexes) == list(range(100))
    assert fresh.count(True) == 1
    assert root(100, journal.log_node) == root_of(journal.log())


def test_a_closed_journal_says_so(path: Path) -> None:
    journal = SqliteJournal(path)
    journal.close()
    journal.close()
    with pytest.raises(ToolError):
        journal.vms()
