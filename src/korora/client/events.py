"""What a migration says while it runs: progress, notes, and one outcome. NDJSON lines in, values out.

Promise: a line is one known event or a PeerError. Limit: whether the outcome is true is the receipt's matter.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from korora.errors import ExitCode, KororaError, PeerError, error_of

OutcomeWord = Literal["completed", "refused", "failed", "cancelled", "in-doubt"]


class MigrationProgress(msgspec.Struct, frozen=True, tag_field="event", tag="progress"):
    """One reading: see model.progress.Progress."""

    phase: str
    fraction: float = 0.0
    bytes_sent: int = 0
    bytes_remaining: int = 0
    rate_bytes_per_s: float = 0.0
    dirty_rate_bytes_per_s: float = 0.0
    eta_low_s: float | None = None
    eta_high_s: float | None = None
    round: int = 0
    note: str = ""


class MigrationNote(msgspec.Struct, frozen=True, tag_field="event", tag="note"):
    message: str


class Failure(msgspec.Struct, frozen=True):
    """An error as facts; `exit_code` is an errors.ExitCode."""

    kind: str
    message: str
    remedy: str = ""
    vm_runs_on: str | None = None
    exit_code: int = ExitCode.TOOL

    def as_error(self) -> KororaError:
        return error_of(self.exit_code, self.kind, self.message, self.remedy, self.vm_runs_on)


class VtpmComparison(msgspec.Struct, frozen=True):
    """Whether the vTPM at the destination is the one that left; None where it was not compared."""

    ek_same: bool | None = None
    pcrs_same: bool | None = None
    nv_same: bool | None = None


class MigrationOutcome(msgspec.Struct, frozen=True, tag_field="event", tag="outcome"):
    """How it ended. None where it is unknown or never came so far; times are milliseconds."""

    outcome: OutcomeWord
    session: str | None = None
    vm: str | None = None
    source: str | None = None
    destination: str | None = None
    mode: str | None = None
    downtime_ms: float | None = None
    total_ms: float | None = None
    decisions_ms: float | None = None  # of the total, what the source's rules and their log took
    bytes_sent: int | None = None
    bytes_guest: int | None = None
    vtpm: VtpmComparison | None = None
    receipt: str | None = None
    attested: dict[str, Any] | None = None
    limits: tuple[str, ...] = ()  # what this move could not prove
    error: Failure | None = None

    @property
    def exit_code(self) -> ExitCode:
        """What the command line answers: the error's own code, or what the bare word means."""
        if self.outcome == "completed":
            return ExitCode.DONE
        if self.error is not None and self.error.exit_code in list(ExitCode)[1:]:
            return ExitCode(self.error.exit_code)
        return _CODE_OF_WORD[self.outcome]


Event = MigrationProgress | MigrationNote | MigrationOutcome

_CODE_OF_WORD = {
    "refused": ExitCode.REFUSED,
    "cancelled": ExitCode.REFUSED,
    "failed": ExitCode.TOOL,
    "in-doubt": ExitCode.IN_DOUBT,
}


def parse_event(line: bytes) -> Event:
    """One line of the stream. PeerError when it is not one known event."""
    try:
        event: Event = msgspec.json.decode(line, type=Event)
        return event
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise PeerError(
            f"the daemon told of the migration in a line that is not in the contract: {error}",
            kind="daemon-answer",
            remedy="see that the daemon is korora hostd, of the same version as this command",
        ) from error


def word_of(error: KororaError) -> OutcomeWord:
    """The outcome's word for an error that ended a migration before or instead of its daemon's own word."""
    if error.kind == "cancelled":
        return "cancelled"
    if error.exit_code is ExitCode.IN_DOUBT:
        return "in-doubt"
    untouched = {ExitCode.USAGE, ExitCode.REFUSED, ExitCode.QUESTION}
    return "refused" if error.exit_code in untouched else "failed"


def failure_of(error: KororaError) -> Failure:
    return Failure(error.kind, error.message, error.remedy, error.vm_runs_on, int(error.exit_code))
