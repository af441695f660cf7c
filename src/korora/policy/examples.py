"""What an operator expects of his policies, as a file that is tried out: examples and their answers (S2).

[[example]]
operator = "alice"
action = "migrate"                 # unless it is said
vm = "web-1"
from = "north"
to = "south"
mode = "live"                      # unless it is said
at = 2026-11-28T23:00:00Z          # now, unless it is said
peer_state = "hardened"            # not attested yet, unless it is said
expect = "yes"                     # "no", "second person" or "question"
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

import msgspec

from korora.errors import UsageError
from korora.model.authorization import Answer, Authorized, Denied, NeedsApproval, Uncovered
from korora.model.identity import HostName, OperatorName, VmName
from korora.model.plan import MigrationRequest, Mode

MAX_CHARACTERS: Final = 1024 * 1024
Expected = Literal["yes", "no", "second person", "question"]


class Example(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"source": "from", "destination": "to"}
):
    operator: str
    vm: str
    source: str
    destination: str
    expect: Expected
    action: Literal["migrate", "approve", "govern", "cancel", "observe", "resolve"] = "migrate"
    mode: Mode = Mode.LIVE
    at: datetime | None = None
    peer_state: str | None = None

    def request(self) -> MigrationRequest:
        names = (VmName(self.vm), HostName(self.source), HostName(self.destination))
        return MigrationRequest(OperatorName(self.operator), self.action, *names, self.mode, "", 0, 0)

    def moment(self, now: float) -> float:
        return now if self.at is None else self.at.timestamp()

    @property
    def text(self) -> str:
        when = "" if self.at is None else f" at {self.at.isoformat()}"
        state = "" if self.peer_state is None else f", the other host {self.peer_state}"
        return (
            f"{self.operator} {self.action} {self.vm} from {self.source} to {self.destination}{when}{state}"
        )


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    example: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Tried:
    example: Example
    answer: Expected
    because: str

    @property
    def as_expected(self) -> bool:
        return self.answer == self.example.expect


def parse(text: str) -> tuple[Example, ...]:
    """UsageError(kind="bad-examples") names the first thing that is wrong."""
    try:
        if len(text) > MAX_CHARACTERS:
            raise ValueError(f"it has more than {MAX_CHARACTERS} characters")
        read = msgspec.convert(tomllib.loads(text), _File).example
        if not read:
            raise ValueError("it has no [[example]]")
        for one in read:
            if one.at is not None and one.at.tzinfo is None:
                raise ValueError(f"{one.at.isoformat()} has no time zone: write Z or an offset behind it")
    except (ValueError, msgspec.ValidationError, RecursionError) as error:
        raise UsageError(
            f"the examples cannot be read: {error}",
            kind="bad-examples",
            remedy="write each as [[example]] with operator, vm, from, to and expect",
        ) from error
    return read


def tried(example: Example, answer: Answer) -> Tried:
    match answer:
        case Authorized(by):
            return Tried(example, "yes", by)
        case NeedsApproval(by):
            return Tried(example, "second person", by)
        case Uncovered(reason):
            return Tried(example, "question", reason)
        case Denied(_, reason, _):
            return Tried(example, "no", reason)
