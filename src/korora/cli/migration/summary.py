"""The last word on a migration, for people: what happened, what was attested, where the proof lies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from korora.cli.render import error_text, fields, mark, milliseconds, say, say_json, size, warn
from korora.client import MigrationOutcome
from korora.errors import ExitCode


def told(outcome: MigrationOutcome, *, as_json: bool) -> ExitCode:
    """Tell it; returns the exit code it ends with."""
    if as_json:
        say_json(outcome)
    elif outcome.outcome == "completed":
        summarize(outcome)
    if outcome.error is not None:
        warn(error_text(outcome.error.as_error()))
    return outcome.exit_code


def summarize(outcome: MigrationOutcome) -> None:
    """The summary of a migration that completed."""
    say()
    say(f"✓ {outcome.vm} runs on {outcome.destination} (was on {outcome.source}, {outcome.mode} migration)")
    fields([(f"  {name}", value) for name, value in _facts(outcome)])
    if outcome.receipt:
        say("  `korora receipt show FILE` tells what it says, `korora receipt verify FILE` whether it holds")


def _facts(outcome: MigrationOutcome) -> Iterator[tuple[str, object]]:
    yield "downtime", milliseconds(outcome.downtime_ms)
    yield "total time", milliseconds(outcome.total_ms)
    yield "bytes sent", size(outcome.bytes_sent)
    yield "guest memory", size(outcome.bytes_guest)
    yield from _attested(outcome.attested or {})
    if outcome.vtpm is not None:
        compared = outcome.vtpm
        yield (
            "vTPM before and after",
            f"endorsement key {mark(compared.ek_same)}  PCRs {mark(compared.pcrs_same)}"
            f"  NV {mark(compared.nv_same)}",
        )
    if outcome.session:
        yield "session", f"{outcome.session[:16]}…"  # whole with --json, and in the receipt's name
    yield "receipt", outcome.receipt or "none: there is no proof of this move that both hosts signed"
    yield from (("not proved", limit) for limit in outcome.limits)


def _attested(attested: dict[str, Any]) -> Iterator[tuple[str, object]]:
    """What the daemon says was attested, a line each; nested facts on one line."""
    for name, value in attested.items():
        yield f"attested: {name}", _inline(value)


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_inline(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_inline(inner) for inner in value)
    if isinstance(value, bool):
        return mark(value)
    return str(value)
