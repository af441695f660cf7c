"""Show a list of checks, and say by the exit code whether all of them held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from korora.cli.render import error_object, error_text, mark, say, say_json, warn
from korora.errors import ExitCode, IntegrityError


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `ok` is None where there was nothing to compare with."""

    name: str
    ok: bool | None
    detail: str


def told(
    subject: str, checks: Sequence[Check], facts: dict[str, object], *, as_json: bool, remedy: str
) -> ExitCode:
    """Print them. DONE when none failed, INTEGRITY otherwise; then the error names what failed."""
    failed = [check.name for check in checks if check.ok is False]
    error = IntegrityError(
        f"{subject} does not hold: {', '.join(failed)}", kind="verification-failed", remedy=remedy
    )
    if as_json:
        shown = error_object(error) if failed else None
        say_json({**facts, "verified": not failed, "checks": checks, "error": shown})
    else:
        for check in checks:
            say(f"{mark(check.ok)} {check.name}: {check.detail}")
    if failed:
        warn(error_text(error))
        return error.exit_code
    if not as_json:
        say(f"✓ {subject} holds")
    return ExitCode.DONE
