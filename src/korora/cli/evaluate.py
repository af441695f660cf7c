"""`korora evaluate`: how near a migration, or an installation, comes to the ideal, with the evidence (P5).

Limit: it looks, and mends nothing. What the score does not say stands in docs/EVALUATION.md.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from korora.cli.invocation import Invocation
from korora.cli.options import AsJson
from korora.cli.render import error_object, error_text, say, say_json, warn
from korora.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    from korora.cli.evaluation.gathering import Gathered
    from korora.policy.evaluation.scoring import Report


def evaluate(
    context: typer.Context,
    host: Annotated[
        str | None, typer.Option("--host", metavar="HOST", help="One host; default: all of the site.")
    ] = None,
    receipt: Annotated[
        Path | None,
        typer.Option("--receipt", metavar="FILE", help="One migration, by its receipt; no host is asked."),
    ] = None,
    operators: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --receipt: the operators' keys; default: of [site]."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the report to a page of its own.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score an installation, or one migration, against the ideal, and link each score to its evidence.

    Exit code 0 when it was evaluated, whatever the score; 5 when a receipt or a log does not hold.
    """
    from korora.cli.evaluation import telling
    from korora.policy.evaluation.installation import INSTALLATION
    from korora.policy.evaluation.migration import MIGRATION
    from korora.policy.evaluation.scoring import evaluate as hold_against

    invocation = Invocation.of(context)
    _check(host or invocation.host, receipt, operators, html)
    gathered = _gathered(invocation, host, receipt, operators)
    yardstick = MIGRATION if receipt is not None else INSTALLATION
    report = hold_against(gathered.target, yardstick, gathered.evidence)
    made_at = int(time.time())
    if html is not None:
        _write(html, report, gathered, made_at)
    error = _violation(report)
    if as_json:
        shown = error_object(error) if error is not None else None
        say_json({**telling.document(report, gathered, made_at), "error": shown})
    else:
        for line in telling.lines(report, gathered):
            say(line)
    if error is not None:
        warn(error_text(error))
        raise typer.Exit(error.exit_code)


def _check(host: str | None, receipt: Path | None, operators: Path | None, html: Path | None) -> None:
    """What contradicts itself is said before anything is read."""
    if receipt is not None and host is not None:
        raise UsageError(
            "a host and --receipt are two different targets", kind="usage", remedy="give one of them"
        )
    if operators is not None and receipt is None:
        raise UsageError(
            "--operators belongs to --receipt", kind="usage", remedy="name the file in [site] instead"
        )
    if html is not None and receipt is not None and _same(html, receipt):
        raise UsageError(
            "the page would take the place of the receipt", kind="usage", remedy="give --html another name"
        )


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False


def _gathered(
    invocation: Invocation, host: str | None, receipt: Path | None, operators: Path | None
) -> Gathered:
    if receipt is None:
        from korora.cli.evaluation.installation import surveyed

        return surveyed(invocation, host)
    from korora.cli.evaluation.receipt import examined
    from korora.cli.evidence.anchors import operators_of
    from korora.cli.site import read_bytes
    from korora.protocol.receipt.document import MAX_BUNDLE_BYTES

    data = read_bytes(receipt, "the receipt", MAX_BUNDLE_BYTES)
    site = invocation.site
    return examined(data, str(receipt), site, operators_of(site, operators), receipt)


def _write(path: Path, report: Report, gathered: Gathered, made_at: int) -> None:
    from importlib.metadata import version

    from korora.cli.evaluation.page import page

    try:
        path.write_text(page(report, gathered, made_at, version("korora")), encoding="utf-8")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"the page {path} cannot be written: {why}",
            kind="unwritable-file",
            remedy="name a file in a folder that you may write to, with room in it",
        ) from error


def _violation(report: Report) -> IntegrityError | None:
    """What was changed that must not change: an evaluation tells it, and does not pass over it."""
    if not report.broken:
        return None
    facts = (f"{one.subject}: {one.fact}" if one.subject else one.fact for one in report.broken)
    return IntegrityError(
        f"{report.target.name} does not hold: {', '.join(facts)}",
        kind="verification-failed",
        remedy="believe nothing that depends on it, and keep it: it is evidence;"
        " see that the trust anchors in [site] are those of these hosts",
    )
