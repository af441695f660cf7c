"""System files against the image's own package database, without a baseline."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.agents.integrity.files.packages.dpkg import DpkgDatabase
from korora.agents.integrity.files.packages.verifying import compared, resolved
from korora.model.files import Content, FileRecord


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def file(path: bytes, content: bytes = b"as packed", **more: object) -> FileRecord:
    made = FileRecord(
        volume=1, path=path, kind="file", mode=0o755, owner=0, group=0, size=len(content), links=1, xattrs={},
        blake3="00", md5=md5(content),
    )  # fmt: skip
    return msgspec.structs.replace(made, **more)


def database(**contents: bytes) -> DpkgDatabase:
    made = DpkgDatabase()
    for name, content in contents.items():
        made.take(Content(1, b"/var/lib/dpkg/" + name.replace("_", ".").encode(), content))
    return made


SUMS = f"{md5(b'as packed')}  bin/login\n".encode()
STATUS = (
    b"Package: login\nStatus: install ok installed\nConffiles:\n"
    b" /etc/login.defs " + md5(b"as packed").encode() + b"\n /etc/gone " + b"0" * 32 + b" obsolete\n\n"
)
LINKED = file(b"/bin", kind="symlink", target=b"usr/bin")


def found(made: DpkgDatabase, *files: FileRecord) -> list[tuple[str, bytes, str]]:
    told = compared([made.read()], {one.path: one for one in files})
    return [(one.finding, one.path, one.package) for one in told]


def test_what_is_as_it_was_packed_is_no_finding() -> None:
    assert found(database(login_md5sums=SUMS), file(b"/bin/login")) == []


def test_it_is_found_behind_the_link_that_bin_is() -> None:
    assert found(database(login_md5sums=SUMS), LINKED, file(b"/usr/bin/login")) == []
    other = file(b"/usr/bin/login", b"evil")
    assert found(database(login_md5sums=SUMS), LINKED, other) == [("changed", b"/bin/login", "login")]


@pytest.mark.parametrize(
    ("there", "finding"),
    [
        (file(b"/bin/login", b"evil"), "changed"),
        (file(b"/bin/other"), "missing"),
        (file(b"/bin/login", kind="directory"), "not a file"),
        (file(b"/bin/login", md5=None, problem="EIO"), "unread"),
    ],
)
def test_whatever_is_not_as_it_was_packed_is_told(there: FileRecord, finding: str) -> None:
    assert found(database(login_md5sums=SUMS), there) == [(finding, b"/bin/login", "login")]


def test_a_configuration_file_that_differs_is_told_apart_and_an_obsolete_one_is_not_missed() -> None:
    made = database(status=STATUS)
    assert found(made, file(b"/etc/login.defs")) == []
    assert found(made, file(b"/etc/login.defs", b"mine")) == [("configured", b"/etc/login.defs", "login")]


def test_a_diverted_file_is_looked_for_where_it_went() -> None:
    made = database(login_md5sums=SUMS, diversions=b"/bin/login\n/bin/login.real\nother\n")
    assert found(made, file(b"/bin/login", b"of another"), file(b"/bin/login.real")) == []


@pytest.mark.parametrize(
    "more", [{"mode": 0o4755}, {"mode": 0o2755}, {"xattrs": {"security.capability": "00"}}]
)
def test_a_privileged_program_of_no_package_is_told(more: dict[str, Any]) -> None:
    made = database(login_md5sums=SUMS, login_list=b"/.\n/bin\n/bin/login\n")
    login, other = file(b"/bin/login", **more), file(b"/usr/local/su", b"evil", **more)
    assert found(made, login, other) == [("privileged", b"/usr/local/su", "")]


def test_lines_that_are_none_are_told_and_the_others_count() -> None:
    made = database(login_md5sums=b"nonsense\n" + SUMS)
    assert made.read().problems == ["a line of the sums of login is none"]
    assert found(made) == [("missing", b"/bin/login", "login")]


@given(st.binary(max_size=300), st.sampled_from(["a_md5sums", "a_list", "status", "diversions"]))
def test_whatever_the_guest_wrote_is_read_without_failing(content: bytes, name: str) -> None:
    told = list(compared([database(**{name: content}).read()], {b"/bin": LINKED}))
    assert {one.finding for one in told} <= {"missing", "not a file"}  # nothing else is on this disk


def test_links_that_lead_in_circles_come_to_an_end() -> None:
    files = {
        b"/a": file(b"/a", kind="symlink", target=b"b"),
        b"/b": file(b"/b", kind="symlink", target=b"/a"),
    }
    assert resolved(b"/a/x", files)


def test_dots_in_a_links_target_are_followed() -> None:
    files = {b"/usr/lib/x": file(b"/usr/lib/x", kind="symlink", target=b"../.././opt//x")}
    assert resolved(b"/usr/lib/x/y", files) == b"/opt/x/y"
