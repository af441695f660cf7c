"""Files against what databases state, whatever their kind."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from korora.agents.integrity.files.packages.verifying import compared
from korora.model.files import FileRecord
from korora.model.packages import Packages, Stated


def file(path: bytes, **more: object) -> FileRecord:
    made = FileRecord(
        volume=1, path=path, kind="file", mode=0o755, owner=0, group=0, size=1, links=1, xattrs={},
        blake3="00", md5="aa", sha256="bb",
    )  # fmt: skip
    return msgspec.structs.replace(made, **more)


def rpm(**more: Any) -> Packages:
    stated: dict[str, Any] = {
        "algorithm": "sha256",
        "digest": "bb",
        "package": "p",
        "mode": 0o755,
        "capabilities": False,
    }
    return Packages("RPM", {b"/bin/p": Stated(**(stated | more))}, {b"/bin/p", b"/bin/link"})


DEBIAN = Packages("Debian", {b"/bin/d": Stated("md5", "aa", "d")}, {b"/bin/d"})


def found(databases: list[Packages], *files: FileRecord) -> list[tuple[str, bytes, str]]:
    told = compared(databases, {one.path: one for one in files})
    return [(one.finding, one.path, one.package) for one in told]


def test_each_digest_is_compared_with_its_own_kind() -> None:
    assert found([rpm()], file(b"/bin/p")) == []
    assert found([rpm(digest="aa")], file(b"/bin/p")) == [("changed", b"/bin/p", "p")]
    assert found([rpm(algorithm="md5", digest="aa")], file(b"/bin/p")) == []
    assert found([rpm(algorithm="md5", digest="bb")], file(b"/bin/p")) == [("changed", b"/bin/p", "p")]


@pytest.mark.parametrize("more", [{"algorithm": "other"}, {"algorithm": "sha256"}])
def test_what_cannot_be_compared_is_unread_and_never_well(more: dict[str, Any]) -> None:
    assert found([rpm(**more)], file(b"/bin/p", sha256=None)) == [("unread", b"/bin/p", "p")]


def test_what_may_be_gone_is_not_missed_and_what_may_be_changed_is_told_apart() -> None:
    assert found([rpm()]) == [("missing", b"/bin/p", "p")]
    assert found([rpm(optional=True)]) == []
    assert found([rpm(configured=True, digest="cc")], file(b"/bin/p")) == [("configured", b"/bin/p", "p")]


@pytest.mark.parametrize("more", [{"mode": 0o4755}, {"xattrs": {"security.capability": "00"}}])
def test_rights_that_its_package_did_not_give_are_told(more: dict[str, Any]) -> None:
    assert found([rpm()], file(b"/bin/p", **more)) == [("privileged", b"/bin/p", "p")]
    assert found([rpm(mode=0o4755, capabilities=True)], file(b"/bin/p", **more)) == []
    assert found([rpm(mode=None, capabilities=None)], file(b"/bin/p", **more)) == []


def test_a_program_of_either_database_is_of_a_package() -> None:
    su = file(b"/bin/d", mode=0o4755)
    assert found([rpm(), DEBIAN], file(b"/bin/p"), su) == []
    assert found([rpm()], file(b"/bin/p"), su) == [("privileged", b"/bin/d", "")]


def test_where_a_database_was_not_read_nobody_knows_what_no_package_brought() -> None:
    unread = Packages("RPM", problems=("it is not read",))
    evil = file(b"/bin/evil", mode=0o4755)
    assert found([DEBIAN, unread], file(b"/bin/d"), evil) == []
    half = Packages("Debian", DEBIAN.stated, DEBIAN.owned, problems=("a line is none",))
    assert found([half], file(b"/bin/d"), evil) == [("privileged", b"/bin/evil", "")]
