"""The report as lines for people and as a document for scripts (a contract: see docs/EVALUATION.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from korora.cli.evaluation.gathering import Gathered
from korora.policy.evaluation.evidence import Link, Place, Standing
from korora.policy.evaluation.scoring import Report, Scored, Shown, Verdict

SIGNS: Final = {Verdict.MET: "✓", Verdict.PARTLY: "~", Verdict.NOT_MET: "✗", Verdict.NOT_LOOKED_AT: "–"}
_SIGN_OF: Final = {Standing.GOOD: "✓", Standing.PARTLY: "~", Standing.LACKING: "✗", Standing.BROKEN: "✗"}


def document(report: Report, gathered: Gathered, made_at: int) -> dict[str, object]:
    """For scripts. `made_at` is in Unix seconds, `percent` rounded down."""
    target = report.target
    return {
        "target": {"kind": target.kind, "name": target.name, "hosts": list(target.subjects)},
        "yardstick": report.yardstick.ideal,
        "made_at": made_at,
        "holds": not report.broken,
        "score": {"percent": report.percent, **counts(report)},
        "criteria": [_criterion(one) for one in report.scored],
        "advice": [
            {"criterion": advice.criterion.id, "points": advice.points, "remedies": list(advice.remedies)}
            for advice in report.advice
        ],
        "process": list(gathered.process),
    }


def counts(report: Report) -> dict[str, int]:
    return {verdict.replace(" ", "_"): report.count(verdict) for verdict in Verdict}


def lines(report: Report, gathered: Gathered) -> Iterator[str]:
    """For people: each criterion with its evidence, the total, and what would raise it."""
    yield f"evaluation of {report.target.name}"
    yield f"against the ideal: {report.yardstick.ideal}"
    for one in report.scored:
        yield ""
        yield from _lines_of(one)
    yield ""
    yield summary(report)
    if report.advice:
        yield ""
        yield "what would raise the score"
    for advice in report.advice:
        for remedy in advice.remedies:
            yield f"  {advice.points:4.1f}  {advice.criterion.id}: {remedy}"
    yield ""
    yield "how it was made"
    yield from (f"  {step}" for step in gathered.process)


def summary(report: Report) -> str:
    said = ", ".join(f"{report.count(verdict)} {verdict}" for verdict in Verdict)
    broken = ", ".join(dict.fromkeys(finding.fact for finding in report.broken))
    return f"{report.percent} of 100: {said}" + (f"; does not hold: {broken}" if broken else "")


def found_of(shown: Shown) -> str:
    """What was found, and whether it is believed."""
    if shown.finding is None:
        return "not looked at"
    if shown.void is not None:
        return f"not believed, for {shown.void.fact} does not hold: {shown.finding.found}"
    if not shown.grounded:
        return f"not believed, for what it rests on was not looked at: {shown.finding.found}"
    return shown.finding.found


def sign_of(shown: Shown) -> str:
    if shown.finding is None or not shown.grounded:
        return "–"
    return _SIGN_OF[shown.finding.standing] if shown.void is None else "✗"


def _lines_of(one: Scored) -> Iterator[str]:
    head = f"{SIGNS[one.verdict]} {one.criterion.requirement} {one.criterion.id}: {one.criterion.asked}"
    yield f"{head} {one.verdict}, {one.percent} % (weight {one.criterion.weight})"
    for shown in one.shown:
        subject = f"{shown.subject}: " if shown.subject else ""
        yield f"    {sign_of(shown)} {subject}{shown.need.text}: {found_of(shown)}"
        if shown.finding is not None:
            yield from (f"        {link.place} {link.where}" for link in _telling(shown.finding.links))


def _telling(links: Sequence[Link]) -> Sequence[Link]:
    """Without the receipt as a whole, where a part of it is named."""
    parts = [link for link in links if link.place is not Place.RECEIPT]
    return parts or links


def _criterion(one: Scored) -> dict[str, object]:
    asked = one.criterion
    return {
        "id": asked.id,
        "requirement": asked.requirement,
        "asked": asked.asked,
        "ideal": asked.ideal,
        "weight": asked.weight,
        "verdict": one.verdict,
        "percent": one.percent,
        "evidence": [_evidence(shown) for shown in one.shown],
    }


def _evidence(shown: Shown) -> dict[str, object]:
    finding = shown.finding
    return {
        "fact": shown.need.fact,
        "host": shown.subject or None,
        "needed": shown.need.text,
        "vital": shown.need.vital,
        "standing": finding.standing if finding is not None else None,
        "believed": finding is not None and shown.grounded and shown.void is None,
        "found": found_of(shown),
        "links": [
            {"place": link.place, "where": link.where, "file": link.file or None}
            for link in (finding.links if finding is not None else ())
        ],
        "remedy": shown.remedy if shown.worth != 1 else None,
    }
