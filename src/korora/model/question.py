"""What no rule of this host can decide alone: who asked for what, and what a person said to it (P2, S2)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NewType

import msgspec

from korora.model.identity import HostName, OperatorName, VmName
from korora.model.plan import MigrationRequest, Mode

QuestionId = NewType("QuestionId", str)
"""16 hex digits. The same matter is the same question, on every host and however often it is asked."""


@dataclass(frozen=True, slots=True)
class Matter:
    """What a request asks for, without when and with which nonce."""

    operator: OperatorName
    procedure: str
    vm: VmName
    source: HostName
    destination: HostName
    mode: Mode

    @classmethod
    def of(cls, request: MigrationRequest) -> Matter:
        return cls(
            request.operator, request.procedure, request.vm, request.source, request.destination, request.mode
        )

    @property
    def id(self) -> QuestionId:
        return QuestionId(hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:16])

    @property
    def text(self) -> str:
        way = f"from {self.source} to {self.destination} ({self.mode})"
        return f"{self.operator} {self.procedure} {self.vm} {way}"


class Why(StrEnum):
    """Why a person is asked."""

    UNCOVERED = "question"  # no policy speaks of it
    SECOND_PERSON = "needs-approval"  # a policy lets it happen if a second person agrees


class Stage(StrEnum):
    OPEN = "open"
    ANSWERED = "answered"  # the next such request is decided by it
    USED = "used"  # it was; the next one is a question again


@dataclass(frozen=True, slots=True)
class Said:
    """A person's answer, as signed. `until` in Unix seconds."""

    by: OperatorName
    answer: Literal["yes", "no"]
    reason: str
    until: int
    envelope: bytes


@dataclass(frozen=True, slots=True)
class Question:
    """`asked_at`: when it was asked last, in Unix seconds; `times`: how often since it was used last."""

    matter: Matter
    why: Why
    reason: str
    asked_at: int
    times: int = 1
    stage: Stage = Stage.OPEN
    said: Said | None = None

    @property
    def id(self) -> QuestionId:
        return self.matter.id
