"""authorization.toml and policies/*.cedar beside it, which an administrator edits while the daemon runs.

Promise: each decision uses the files as they are at that moment. While an edit cannot be used, the policy
that was in force before stays in force, and `check` says why; one that cannot be used when the daemon starts
keeps it from starting. Limit: whoever may write the files decides, so files that others than their owner may
write are refused.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from zoneinfo import ZoneInfo

import structlog

from korora import named_file
from korora.adapters.authorization.answered import gives_too_much
from korora.adapters.authorization.cedar import Policies
from korora.errors import RefusedError, UsageError
from korora.model.authorization import Answer, Denied, Uncovered
from korora.model.identity import OperatorName
from korora.model.plan import MigrationRequest
from korora.policy import examples
from korora.policy.authorization import ACTIONS, Roster, parse

MAX_BYTES = 1024 * 1024
"""Of all files together."""
FOLDER = "policies"
EXAMPLES = "examples.toml"

_log = structlog.get_logger(__name__)


class FileAuthorizer:
    """Implements `ports.authorizer.Authorizer`. UsageError at once when the files cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._texts = read(path)
        self._roster, self._policies = _understood(path, self._texts)
        self._seen: Mapping[Path, str] | str = self._texts

    def check(self) -> None:
        """UsageError while the files as they are now cannot be used; what was in force before still is.

        Files that can be used are in force from then on, as with a decision.
        """
        self._current()
        _understood(self._path, read(self._path))

    def operator_key(self, operator: str) -> bytes | None:
        return self._current()[0].keys.get(OperatorName(operator))

    def operator_of(self, account: str) -> OperatorName | None:
        return self._current()[0].accounts.get(account)

    def decide(self, request: MigrationRequest, now: float, peer_state: str | None = None) -> Answer:
        roster, policies = self._current()
        if request.procedure not in ACTIONS:
            return Denied(
                "unknown-procedure",
                f"nobody may ask for {request.procedure!r} here",
                f"ask for one of {', '.join(ACTIONS)}",
            )
        if request.operator not in roster.keys:
            return Denied(
                "unknown-operator",
                f"this host does not know the operator {request.operator!r}",
                f"add [operators.{request.operator}] with the operator's public key to authorization.toml",
            )
        return policies.decide(roster.facts(request, now, peer_state), asks=roster.asks)

    def check_policy(self, policy: str, request: MigrationRequest, author: OperatorName, now: float) -> None:
        try:
            roster, policies = _understood(self._path, read(self._path) | {Path("the new policy"): policy})
        except UsageError as error:
            raise _unsound(error.message) from error
        if isinstance(
            policies.decide(roster.facts(request, now, None), asks=roster.asks), Denied | Uncovered
        ):
            raise _unsound(f"it does not let {request.operator} {request.procedure} {request.vm}")
        groups = roster.groups.get(author, ())
        if problem := gives_too_much(policy, request.procedure, author, groups):
            raise _unsound(problem)
        self._try_examples(roster, policies, now)

    def adopt(self, name: str, policy: str) -> None:
        _write(self._path.parent / FOLDER / f"{name}.cedar", policy)
        self._current()

    def _try_examples(self, roster: Roster, policies: Policies, now: float) -> None:
        path = self._path.with_name(EXAMPLES)
        if not path.exists():
            return
        for example in examples.parse(_text(path, MAX_BYTES)):
            facts = roster.facts(example.request(), example.moment(now), example.peer_state)
            result = examples.tried(example, policies.decide(facts, asks=roster.asks))
            if example.operator in roster.keys and not result.as_expected:
                raise _unsound(f"{path} expects {example.expect} for {example.text}, not {result.answer}")

    def _current(self) -> tuple[Roster, Policies]:
        # Contents, not times: two edits within one clock tick and of one size are still two.
        try:
            texts = read(self._path)
            if texts != self._texts:
                self._roster, self._policies = _understood(self._path, texts)
                self._texts = texts
                _log.info("authorization_reloaded", path=str(self._path), policies=len(self._policies))
        except UsageError as error:
            self._say_once(error.message)
        else:
            self._seen = texts
        return self._roster, self._policies

    def _say_once(self, problem: str) -> None:
        if problem != self._seen:
            _log.error("authorization_edit_unusable", problem=problem, in_force="the policy before it")
            self._seen = problem


def read(path: Path) -> dict[Path, str]:
    """All files by their paths: authorization.toml first. UsageError names the first that cannot be read."""
    found = [path]
    try:
        found += sorted(entry for entry in (path.parent / FOLDER).iterdir() if entry.suffix == ".cedar")
    except FileNotFoundError:
        pass  # no policies: nothing is allowed
    except OSError as error:
        raise _unusable(path.parent / FOLDER, error.strerror or str(error), "make it readable") from error
    texts: dict[Path, str] = {}
    left = MAX_BYTES
    for file in found:
        texts[file] = _text(file, left)
        left -= len(texts[file])
    return texts


def _understood(path: Path, texts: Mapping[Path, str]) -> tuple[Roster, Policies]:
    try:
        roster = parse(texts[path], ZoneInfo)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", kind=error.kind, remedy=error.remedy) from error
    return roster, Policies({str(file): text for file, text in texts.items() if file != path})


def _text(path: Path, left: int) -> str:
    try:
        with named_file.opened(path) as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise _unusable(path, "others than its owner may write it", f"chmod go-w {path}")
            data = file.read(left + 1)
        if len(data) > left:
            raise _unusable(path, f"the rules are larger than {MAX_BYTES} bytes together", "shorten them")
        return data.decode()
    except OSError as error:
        raise _unusable(
            path, error.strerror or str(error), "make the file readable for the daemon"
        ) from error
    except UnicodeDecodeError as error:
        raise _unusable(path, "it is not UTF-8 text", "write it as UTF-8") from error


def _write(file: Path, text: str) -> None:
    """Whole or not at all, and readable for the owner alone."""
    file.parent.mkdir(mode=0o755, exist_ok=True)
    new = file.with_suffix(".new")
    with new.open("w") as out:
        os.fchmod(out.fileno(), 0o600)
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    new.replace(file)


def _unsound(problem: str) -> RefusedError:
    return RefusedError(
        f"the policy is not put in force: {problem}",
        kind="unsound-policy",
        remedy="try it first: korora policy check, korora policy test",
    )


def _unusable(path: Path, problem: str, remedy: str) -> UsageError:
    return UsageError(f"{path}: {problem}", kind="bad-authorization", remedy=remedy)
