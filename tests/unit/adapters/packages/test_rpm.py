"""RPM's databases, made by rpm and by Berkeley DB themselves, and hostile ones."""

from __future__ import annotations

import hashlib
import random
import sqlite3
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.rpm_tree import DATABASE, rpm_tree
from korora.adapters.packages.rpm import NOT_INSTALLED, RpmDatabase
from korora.model.files import Content
from korora.model.packages import Packages, Stated

PLACE: Final = b"/var/lib/rpm/"
SQLITE, BERKELEY, NDB = "rpmdb.sqlite", "Packages", "Packages.db"
GOOD: Final = b"8\t0\t0\t33261\tab\t\tp\t/x"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Of a database that rpm wrote."""
    return (rpm_tree(tmp_path_factory.mktemp("rpm")) / DATABASE).read_bytes()


@pytest.fixture
def database() -> Iterator[RpmDatabase]:
    made = RpmDatabase()
    yield made
    made.close()
    assert not made._folder.exists()


def read(database: RpmDatabase, files: dict[str, bytes]) -> Packages:
    for name, content in files.items():
        database.take(Content(1, PLACE + name.encode(), content))
    return database.read()


def stated(text: str, mode: int = 0o755, *, configured: bool = False, optional: bool = False) -> Stated:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Stated("sha256", digest, "tiny", configured, optional, mode, capabilities=False)


EXPECTED: Final = {
    b"/usr/bin/tiny": stated("tiny\n"),
    b"/usr/bin/other": stated("other\n"),
    b"/usr/bin/gone": stated("gone\n"),
    b"/usr/bin/su": stated("su\n", 0o4755),
    b"/etc/tiny.conf": stated("setting\n", 0o644, configured=True),
    b"/etc/optional": stated("optional\n", 0o644, configured=True, optional=True),
}
OWNED: Final = EXPECTED.keys() | {b"/usr/bin/link", b"/var/log/tiny.log", b"/usr/share/doc/text"}
ALL_OF_IT: Final = Packages("RPM", EXPECTED, OWNED, {}, [])


def test_what_rpm_installed_is_told_and_what_it_left_out_is_only_owned(
    content: bytes, database: RpmDatabase
) -> None:
    assert read(database, {SQLITE: content}) == ALL_OF_IT


def test_old_packages_have_md5(tmp_path: Path, database: RpmDatabase) -> None:
    found = read(database, {SQLITE: (rpm_tree(tmp_path, algorithm=1) / DATABASE).read_bytes()})
    digest = hashlib.md5(b"tiny\n", usedforsecurity=False).hexdigest()
    assert (found.stated[b"/usr/bin/tiny"].algorithm, found.stated[b"/usr/bin/tiny"].digest) == (
        "md5",
        digest,
    )
    assert not found.problems


def test_a_digest_of_another_kind_is_not_taken_for_one_that_is_known(
    tmp_path: Path, database: RpmDatabase
) -> None:
    found = read(database, {SQLITE: (rpm_tree(tmp_path, algorithm=10) / DATABASE).read_bytes()})
    assert {one.algorithm for one in found.stated.values()} == {"other"}


def test_berkeley_db_is_read_as_well(content: bytes, tmp_path: Path, database: RpmDatabase) -> None:
    (tmp_path / "db").write_bytes(content)
    with sqlite3.connect(tmp_path / "db") as there:
        rows = there.execute("SELECT hnum, blob FROM Packages").fetchall()
    pairs = [(0, struct.pack("<I", max(number for number, _ in rows))), *rows]
    text = "VERSION=3\nformat=bytevalue\ntype=hash\nHEADER=END\n"
    text += "".join(f" {struct.pack('<I', number).hex()}\n {blob.hex()}\n" for number, blob in pairs)
    command = ["db5.3_load", "-h", str(tmp_path), BERKELEY]
    subprocess.run(command, input=text + "DATA=END\n", text=True, check=True, timeout=60)
    assert read(database, {BERKELEY: (tmp_path / BERKELEY).read_bytes()}) == ALL_OF_IT


def test_what_is_in_the_write_ahead_log_counts(content: bytes, tmp_path: Path, database: RpmDatabase) -> None:
    (tmp_path / "db").write_bytes(content)
    there = sqlite3.connect(tmp_path / "db")
    for words in ("PRAGMA journal_mode=WAL", "PRAGMA wal_autocheckpoint=0", "DELETE FROM Packages"):
        there.execute(words)
    there.commit()
    log, main = (tmp_path / "db-wal").read_bytes(), (tmp_path / "db").read_bytes()
    there.close()
    assert len(log) > 1000
    found = read(database, {SQLITE: main, "rpmdb.sqlite-wal": log})
    assert (found.stated, found.problems) == ({}, [])


def test_a_database_in_parts_is_put_together(content: bytes, database: RpmDatabase) -> None:
    for at in range(0, len(content), 50_000):
        database.take(Content(1, PLACE + SQLITE.encode(), content[at : at + 50_000], at, whole=False))
    assert database.read() == ALL_OF_IT


def test_an_empty_database_of_sqlite_is_no_problem(tmp_path: Path, database: RpmDatabase) -> None:
    subprocess.run(["rpm", "--dbpath", tmp_path, "--initdb"], check=True, capture_output=True, timeout=60)
    found = read(database, {SQLITE: (tmp_path / SQLITE).read_bytes()})
    assert (found.is_there, found.problems) == (False, [])


def test_without_rpm_on_this_machine_it_is_unknown(
    content: bytes, database: RpmDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    found = read(database, {SQLITE: content})
    assert (found.is_there, found.problems) == (False, [NOT_INSTALLED])
    assert "apt-get install rpm" in NOT_INSTALLED


def test_a_copy_that_cannot_be_made_is_unknown(content: bytes, database: RpmDatabase) -> None:
    database._folder.rmdir()
    found = read(database, {SQLITE: content})
    database._folder.mkdir()
    assert (found.is_there, len(found.problems)) == (False, 1)
    assert "could not be copied" in found.problems[0]


# -- hostile ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [SQLITE, BERKELEY, NDB])
@pytest.mark.parametrize(
    "noise", [b"", bytes(8192), b"RpmP" + bytes(8000), random.Random(4).randbytes(40_000)]
)
def test_what_rpm_cannot_read_is_unknown(database: RpmDatabase, name: str, noise: bytes) -> None:
    found = read(database, {name: noise})
    assert not found.is_there
    assert len(found.problems) == 1
    assert "RPM's database" in found.problems[0]


def test_several_databases_are_unknown(content: bytes, database: RpmDatabase) -> None:
    assert "several databases" in read(database, {SQLITE: content, BERKELEY: content}).problems[0]


def test_a_package_that_was_changed_is_a_problem(content: bytes, database: RpmDatabase) -> None:
    bad = content.replace(EXPECTED[b"/usr/bin/tiny"].digest.encode(), b"0" * 64)
    assert bad != content
    found = read(database, {SQLITE: bad})
    assert not found.is_there
    assert "rpm ended with" in found.problems[0]


@pytest.mark.parametrize("seed", range(8))
def test_damage_ends_in_problems_or_changes_nothing_that_is_stated(
    content: bytes, database: RpmDatabase, seed: int
) -> None:
    chance = random.Random(seed)
    bad = bytearray(content)
    for _ in range(20):
        bad[chance.randrange(len(bad) // 2)] ^= 1 << chance.randrange(8)
    found = read(database, {SQLITE: bytes(bad)})
    assert found.problems or found == ALL_OF_IT


def test_a_truncated_one_is_unknown(content: bytes, database: RpmDatabase) -> None:
    assert read(database, {SQLITE: content[: len(content) // 3]}).problems


def test_one_that_takes_too_long_is_ended_and_unknown(content: bytes) -> None:
    database = RpmDatabase(within_s=0.0)
    try:
        assert "did not end in time" in read(database, {SQLITE: content}).problems[0]
    finally:
        database.close()


@given(st.lists(st.binary(max_size=80).filter(lambda line: b"\t/" not in line) | st.just(GOOD), max_size=5))
def test_a_line_that_is_none_is_a_problem_and_the_others_count(lines: list[bytes]) -> None:
    database = RpmDatabase()
    try:
        for line in lines:
            database._take(line)
        assert (b"/x" in database._stated) == (GOOD in lines)
        assert bool(database._problems) == any(line != GOOD for line in lines)
    finally:
        database.close()
