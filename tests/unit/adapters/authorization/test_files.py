"""The files that say who may do what: edited while the daemon runs, sometimes badly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from korora.adapters.authorization.files import MAX_BYTES, FileAuthorizer
from korora.errors import RefusedError, UsageError
from korora.model.authorization import Answer, Authorized, Denied
from korora.model.identity import HostName, OperatorName, VmName
from korora.model.plan import MigrationRequest, Mode
from korora.ports.authorizer import Authorizer

KEY = "11" * 32
REQUEST = MigrationRequest(
    OperatorName("alice"), "migrate", VmName("web"), HostName("a"), HostName("b"), Mode.LIVE, "00", 1, 2
)
PEOPLE = f'[operators.alice]\nkey = "{KEY}"\n'
ALLOWED = '@id("web moves") permit(principal, action, resource == Vm::"web");\n'
FORBIDDEN = ALLOWED.replace('"web")', '"web")').replace("permit", "forbid")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    written = tmp_path / "authorization.toml"
    written.write_text(PEOPLE)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "web.cedar").write_text(ALLOWED)
    return written


def policy(path: Path) -> Path:
    return path.parent / "policies" / "web.cedar"


def asked(authorizer: Authorizer) -> Answer:
    return authorizer.decide(REQUEST, 0.0)


def test_who_resolves_flags_is_allowed_that_and_nothing_else_by_it(path: Path) -> None:
    policy(path).write_text(
        '@id("web team mends") permit(principal, action == Action::"resolve", resource == Vm::"web")'
        ' when { context.source == Host::"a" && context.destination == Host::"a" };'
    )
    word = replace(
        REQUEST, procedure="resolve", destination=HostName("a"), nonce="", issued_at=0, not_after=0
    )
    authorizer = FileAuthorizer(path)
    assert authorizer.decide(word, 0.0) == Authorized("web team mends")
    for other in (
        replace(word, vm=VmName("db")),
        replace(word, source=HostName("b"), destination=HostName("b")),
        *(replace(word, procedure=one) for one in ("migrate", "approve", "govern", "cancel", "observe")),
        replace(word, operator=OperatorName("mallory")),
    ):
        assert not isinstance(authorizer.decide(other, 0.0), Authorized), other
    policy(path).write_text('permit(principal, action == Action::"migrate", resource);')
    assert not isinstance(authorizer.decide(word, 0.0), Authorized)


def test_the_next_decision_uses_the_edited_policy(path: Path) -> None:
    authorizer = FileAuthorizer(path)
    assert asked(authorizer) == Authorized("web moves")
    policy(path).write_text(FORBIDDEN)  # same size, perhaps the same clock tick
    assert isinstance(asked(authorizer), Denied)


def test_a_policy_that_replaces_another_by_rename_is_used(path: Path) -> None:
    authorizer = FileAuthorizer(path)
    new = path.parent / "new"
    new.write_text(FORBIDDEN)
    new.replace(policy(path))
    assert isinstance(asked(authorizer), Denied)


def test_a_policy_that_is_added_or_taken_away_counts_at_once(path: Path) -> None:
    authorizer = FileAuthorizer(path)
    added = path.parent / "policies" / "frozen.cedar"
    added.write_text('@id("freeze") forbid(principal, action, resource);')
    answer = asked(authorizer)
    assert isinstance(answer, Denied)
    assert (answer.kind, "freeze" in answer.reason) == ("forbidden", True)
    added.unlink()
    assert isinstance(asked(authorizer), Authorized)
    policy(path).unlink()
    assert asked(authorizer).kind == "not-allowed"  # type: ignore[union-attr]


def test_without_policies_nothing_is_allowed(path: Path) -> None:
    policy(path).unlink()
    policy(path).parent.rmdir()
    assert isinstance(asked(FileAuthorizer(path)), Denied)


def test_an_operators_key_is_given_and_a_strangers_is_not(path: Path) -> None:
    authorizer = FileAuthorizer(path)
    assert authorizer.operator_key("alice") == b"\x11" * 32
    assert authorizer.operator_key("mallory") is None


def _toml(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def _cedar(content: bytes) -> Callable[[Path], object]:
    return lambda path: policy(path).write_bytes(content)


BROKEN = {
    "no TOML": _toml(b"["),
    "no UTF-8": _toml(b"\xff"),
    "an unknown word": _toml(b"surprise=1"),
    "nested too deep": _toml(b"a=" + b"[" * 5000),
    "huge": _toml(b"#" * (MAX_BYTES + 1)),
    "huge together": _cedar(b"/" * MAX_BYTES),
    "away": lambda path: path.unlink(),
    "one person under two names": _toml(f'{PEOPLE}[operators.ally]\nkey = "{KEY}"\n'.encode()),
    "no Cedar": _cedar(b"permit(principal"),
    "a policy that is no UTF-8": _cedar(b"\xff"),
    "a word that the schema does not have": _cedar(
        ALLOWED.replace("resource ==", "resource is Vn &&").encode()
    ),
    "an attribute that the schema does not have": _cedar(
        b"permit(principal, action, resource) when { resource.size > 3 };"
    ),
    "an action that there is not": _cedar(b'permit(principal, action == Action::"fly", resource);'),
    "a template": _cedar(b"permit(principal == ?principal, action, resource);"),
    "writable by others": lambda path: policy(path).chmod(0o666),
    "a folder": lambda path: (path.parent / "policies" / "odd.cedar").mkdir(),
    "a link that leads nowhere": lambda path: (path.parent / "policies" / "odd.cedar").symlink_to("nowhere"),
}


@pytest.mark.parametrize("edit", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_edit_keeps_the_old_policy_in_force_and_says_so_once(
    path: Path, edit: Callable[[Path], object]
) -> None:
    authorizer = FileAuthorizer(path)
    edit(path)
    with capture_logs() as logs:
        for _ in range(3):
            assert asked(authorizer) == Authorized("web moves")
            assert authorizer.operator_key("alice")
    assert [log["event"] for log in logs] == ["authorization_edit_unusable"]
    with pytest.raises(UsageError) as caught:
        authorizer.check()
    assert caught.value.kind == "bad-authorization"
    assert caught.value.remedy
    assert str(path.parent) in caught.value.message


@pytest.mark.parametrize("edit", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_broken_at_the_start_keeps_the_daemon_from_starting(
    path: Path, edit: Callable[[Path], object]
) -> None:
    edit(path)
    with pytest.raises(UsageError, match=str(path.parent)):
        FileAuthorizer(path)


def test_what_was_looked_at_is_in_force_before_the_next_edit_breaks(path: Path) -> None:
    authorizer = FileAuthorizer(path)
    policy(path).write_text(FORBIDDEN)
    authorizer.check()
    policy(path).write_text("permit(")
    assert isinstance(asked(authorizer), Denied)


def test_once_mended_the_new_policy_is_in_force(path: Path) -> None:
    authorizer = FileAuthorizer(path)
    policy(path).write_text("permit(")
    assert isinstance(asked(authorizer), Authorized)
    policy(path).write_text(FORBIDDEN)
    assert isinstance(asked(authorizer), Denied)
    authorizer.check()


def test_a_file_that_others_may_write_is_refused_with_what_mends_it(path: Path) -> None:
    path.chmod(0o666)
    with pytest.raises(UsageError, match="others than its owner") as caught:
        FileAuthorizer(path)
    assert "chmod go-w" in caught.value.remedy


@pytest.mark.parametrize("procedure", ["", "fly", "migrate\n", "x" * 1000])
def test_what_no_action_is_named_after_is_denied(path: Path, procedure: str) -> None:
    answer = FileAuthorizer(path).decide(replace(REQUEST, procedure=procedure), 0.0)
    assert isinstance(answer, Denied)
    assert answer.kind == "unknown-procedure"


def test_a_stranger_is_denied_whatever_the_policies_say(path: Path) -> None:
    answer = FileAuthorizer(path).decide(replace(REQUEST, operator=OperatorName("mallory")), 0.0)
    assert isinstance(answer, Denied)
    assert answer.kind == "unknown-operator"


ADOPTED = 'permit(principal == Operator::"alice", action == Action::"migrate", resource == Vm::"db");'
BOB = OperatorName("bob")
DATABASE = replace(REQUEST, vm=VmName("db"))
EXPECTED = '[[example]]\noperator = "alice"\nvm = "mail"\nfrom = "a"\nto = "b"\nexpect = "no"\n'


def test_a_policy_that_is_adopted_is_in_force_at_once_and_after_a_restart(path: Path) -> None:
    authorizer = FileAuthorizer(path)
    (path.parent / "examples.toml").write_text(EXPECTED)
    authorizer.check_policy(ADOPTED, DATABASE, BOB, 0.0)
    authorizer.adopt("answered-1", ADOPTED)
    for one in (authorizer, FileAuthorizer(path)):
        assert isinstance(one.decide(DATABASE, 0.0), Authorized)
    written = path.parent / "policies" / "answered-1.cedar"
    assert (written.read_text(), written.stat().st_mode & 0o777) == (ADOPTED, 0o600)


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ("permit(", "unexpected end"),
        ("permit(principal, action, resource) when { resource.size > 1 };", "size"),
        ('permit(principal, action, resource == Vm::"other");', "does not let alice migrate db"),
        ("forbid(principal, action, resource);", "does not let alice migrate db"),
        ('permit(principal == Operator::"alice", action == Action::"migrate", resource);', "expects no for"),
        ("permit(principal, action, resource);", "permits more than was asked"),
        ('permit(principal, action == Action::"migrate", resource == Vm::"db");', "may permit bob"),
    ],
)
def test_a_policy_that_is_not_sound_is_not_adopted(path: Path, policy: str, why: str) -> None:
    authorizer = FileAuthorizer(path)
    (path.parent / "examples.toml").write_text(EXPECTED)
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(RefusedError, match=why) as caught:
        authorizer.check_policy(policy, DATABASE, BOB, 0.0)
    assert caught.value.kind == "unsound-policy"
    assert sorted(path.parent.rglob("*")) == before
    assert isinstance(authorizer.decide(DATABASE, 0.0), Denied)
