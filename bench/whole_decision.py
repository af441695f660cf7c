"""A whole decision: Cedar's answer, the state machine's, and the entry in the log, on disk when it returns.

As a host decides a procedure: its policy files are read again and compared each time, the machine opens what
the procedure takes, decides, and closes again, and each entry is synced by itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bench.policy_world import Asked

from korora.adapters.authorization.files import FOLDER, FileAuthorizer
from korora.adapters.journal.sqlite import SqliteJournal
from korora.model.authorization import Authorized
from korora.model.identity import HostName, OperatorName, VmName
from korora.model.plan import MigrationRequest, Mode
from korora.policy.machine.running.machine import Decision, Machine
from korora.protocol.decision import PolicyDecision

POLICIES: Final = 100
"""Each about one machine of its own, in ten files."""


class Host:
    """What decides on a host, in `folder`, which is on a disk."""

    def __init__(self, folder: Path, running: Machine) -> None:
        self._running = running
        self._journal = SqliteJournal(folder / "journal")
        self._authorizer = FileAuthorizer(_site(folder))
        self._number = 0

    def close(self) -> None:
        self._journal.close()

    def timed(self, asked: Sequence[list[Asked]]) -> Iterator[tuple[str, list[int]]]:
        """Nanoseconds: of each part, and of the whole."""
        times = [self._decide(requests) for requests in asked]
        yield "Cedar", [authorized - begun for begun, authorized, _, _ in times]
        yield "machine", [decided - authorized for _, authorized, decided, _ in times]
        yield "log", [logged - decided for _, _, decided, logged in times]
        yield "whole decision", [logged - begun for begun, _, _, logged in times]

    def _decide(self, requests: list[Asked]) -> tuple[int, int, int, int]:
        self._number += 1
        begun = time.perf_counter_ns()
        answer = self._authorizer.decide(_request(self._number % POLICIES), time.time())
        authorized = time.perf_counter_ns()
        decisions = [self._running.decide(*one) for one in requests]
        decided = time.perf_counter_ns()
        self._journal.append_log(_entry(decisions[len(decisions) // 2], self._number).leaf())
        logged = time.perf_counter_ns()
        if not isinstance(answer, Authorized) or not all(one.allowed for one in decisions):
            raise AssertionError(f"{answer}, {decisions} are not all yes")
        return begun, authorized, decided, logged


def _site(folder: Path) -> Path:
    (folder / FOLDER).mkdir()
    for file in range(10):
        text = "\n".join(_policy(number) for number in range(file, POLICIES, 10))
        (folder / FOLDER / f"{file}.cedar").write_text(text + "\n")
    people = folder / "authorization.toml"
    people.write_text(f'[operators.alice]\nkey = "{"11" * 32}"\n')
    return people


def _policy(number: int) -> str:
    return f'@id("vm {number}") permit(principal, action, resource == Vm::"vm-{number}");'


def _request(number: int) -> MigrationRequest:
    alice, here, there = OperatorName("alice"), HostName("a"), HostName("b")
    return MigrationRequest(alice, "migrate", VmName(f"vm-{number}"), here, there, Mode.LIVE, "00", 1, 2)


def _entry(decision: Decision, number: int) -> PolicyDecision:
    digest = "sha256:" + "0" * 64
    return PolicyDecision(
        vm="vm-1",
        request=digest,
        session="0" * 64,
        role="source",
        number=number,
        procedure=decision.request,
        user="operator alice",
        agent="identity-provider",
        takes="request",
        makes="record",
        value=digest,
        answer=decision.answer.value,
        rule=decision.rule,
        clause=decision.clause,
        protects=decision.protects,
        at=int(time.time()),
    )
