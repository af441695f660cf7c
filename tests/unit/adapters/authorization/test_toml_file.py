"""The access list's file: edited while the daemon runs, sometimes badly."""

from __future__ import annotations

from pathlib import Path

import pytest

from korora.adapters.authorization.toml_file import TomlAuthorizer
from korora.errors import UsageError
from korora.model.authorization import Authorized, Denied
from korora.model.identity import HostName, OperatorName, VmName
from korora.model.plan import MigrationRequest, Mode
from korora.ports.authorizer import Authorizer

KEY = "11" * 32
REQUEST = MigrationRequest(
    OperatorName("alice"), "migrate", VmName("web"), HostName("a"), HostName("b"), Mode.LIVE, "00", 1, 2
)
ALLOWED = (
    f'[operators.alice]\nkey="{KEY}"\n[[allow]]\noperators=["alice"]\nvms=["web"]\nfrom=["a"]\nto=["b"]\n'
)
FORBIDDEN = ALLOWED.replace('to=["b"]', 'to=["c"]')


@pytest.fixture
def path(tmp_path: Path) -> Path:
    written = tmp_path / "authorization.toml"
    written.write_text(ALLOWED)
    return written


def test_the_next_decision_uses_the_edited_file(path: Path) -> None:
    authorizer: Authorizer = TomlAuthorizer(path)
    assert isinstance(authorizer.decide(REQUEST), Authorized)
    path.write_text(FORBIDDEN)  # same size, perhaps the same clock tick
    assert isinstance(authorizer.decide(REQUEST), Denied)


def test_an_operators_key_is_given_and_a_strangers_is_not(path: Path) -> None:
    authorizer = TomlAuthorizer(path)
    assert authorizer.operator_key("alice") == b"\x11" * 32
    assert authorizer.operator_key("mallory") is None


@pytest.mark.parametrize(
    "broken", [b"[", b"\xff", b"surprise=1", b"a=" + b"[" * 5000, b"#" * (1024 * 1024 + 1)]
)
def test_while_an_edit_is_broken_nothing_is_allowed_and_the_file_is_named(path: Path, broken: bytes) -> None:
    authorizer = TomlAuthorizer(path)
    path.write_bytes(broken)
    for _ in range(2):
        with pytest.raises(UsageError, match=str(path)) as caught:
            authorizer.decide(REQUEST)
        assert caught.value.kind == "bad-authorization"
        assert caught.value.remedy
    path.write_text(FORBIDDEN)
    assert isinstance(authorizer.decide(REQUEST), Denied)


def test_while_the_file_is_away_nobody_is_known(path: Path) -> None:
    authorizer = TomlAuthorizer(path)
    path.unlink()
    with pytest.raises(UsageError, match="No such file"):
        authorizer.operator_key("alice")
    path.write_text(ALLOWED)
    assert authorizer.operator_key("alice")


def test_a_file_that_others_may_write_is_refused(path: Path) -> None:
    path.chmod(0o666)
    with pytest.raises(UsageError, match="others than its owner") as caught:
        TomlAuthorizer(path)
    assert "chmod go-w" in caught.value.remedy


def test_a_missing_file_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        TomlAuthorizer(tmp_path / "none.toml")
