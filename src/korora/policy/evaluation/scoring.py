"""Synthesis: what the evidence amounts to, criterion by criterion and in all. Reads no clock, no file.

Promise: a score is a share of what the ideal would show. Taking evidence away never raises one, and a
criterion without evidence is never met. Limit: the total is a weighted mean. It says how much of the ideal
was shown, not how likely harm is; two targets with the same total can lack very different things.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from itertools import groupby

from korora.policy.evaluation.evidence import WORTH, Evidence, Finding, Standing, Target
from korora.policy.evaluation.yardstick import Criterion, Need, Yardstick


class Verdict(StrEnum):
    MET = "met"
    PARTLY = "partly"
    NOT_MET = "not met"
    NOT_LOOKED_AT = "not looked at"


@dataclass(frozen=True, slots=True)
class Shown:
    """One need of one subject, with what was found of it; None when nothing was."""

    need: Need
    subject: str
    finding: Finding | None
    void: Finding | None = None
    """What keeps the finding from being believed."""
    grounded: bool = True
    """Whether what it rests on was looked at."""

    @property
    def worth(self) -> Fraction | None:
        """None when it was not looked at."""
        if self.finding is None or not self.grounded:
            return None
        return WORTH[self.finding.standing] if self.void is None else Fraction(0)

    @property
    def remedy(self) -> str:
        """What would raise its worth."""
        standing = self.void or self.finding
        return (standing.remedy if standing is not None else "") or self.need.raises


@dataclass(frozen=True, slots=True)
class Scored:
    """One criterion. `score` is between 0 and 1."""

    criterion: Criterion
    verdict: Verdict
    score: Fraction
    shown: tuple[Shown, ...]

    @property
    def percent(self) -> int:
        return int(self.score * 100)  # rounded down: 100 is all of it


@dataclass(frozen=True, slots=True)
class Advice:
    """What would raise the score, and by how many points of 100 at most."""

    criterion: Criterion
    points: float
    remedies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """`broken` is all that does not hold, also where no criterion asks for it by itself."""

    target: Target
    yardstick: Yardstick
    scored: tuple[Scored, ...]
    broken: tuple[Finding, ...]

    @property
    def weight(self) -> int:
        return sum(one.criterion.weight for one in self.scored)

    @property
    def percent(self) -> int:
        """Of the ideal, rounded down."""
        return int(100 * sum(one.criterion.weight * one.score for one in self.scored) / self.weight)

    def count(self, verdict: Verdict) -> int:
        return sum(one.verdict is verdict for one in self.scored)

    @property
    def advice(self) -> tuple[Advice, ...]:
        """The most valuable first."""
        given = [self._advice(one) for one in self.scored if one.score < 1]
        return tuple(sorted(given, key=lambda advice: -advice.points))

    def _advice(self, one: Scored) -> Advice:
        points = 100 * one.criterion.weight * (1 - one.score) / self.weight
        return Advice(one.criterion, round(float(points), 1), tuple(_remedies(one.shown)))


def _remedies(shown: Sequence[Shown]) -> Iterator[str]:
    """Each once, led by the hosts that it is for."""
    hosts: dict[str, list[str]] = {}
    for one in shown:
        if one.worth != 1:
            hosts.setdefault(one.remedy, []).append(one.subject)
    for remedy, of in hosts.items():
        named = ", ".join(dict.fromkeys(filter(None, of)))
        yield f"{named}: {remedy}" if named else remedy


def evaluate(target: Target, yardstick: Yardstick, evidence: Evidence) -> Report:
    """Hold the evidence against the ideal."""
    scored = (_scored(criterion, target, evidence) for criterion in yardstick.criteria)
    broken = (finding for finding in evidence.values() if finding.standing is Standing.BROKEN)
    return Report(target, yardstick, tuple(scored), tuple(broken))


def _scored(criterion: Criterion, target: Target, evidence: Evidence) -> Scored:
    shown = tuple(_shown(criterion, target, evidence))
    whole = sum(one.need.share for one in shown)
    earned = sum(
        (_earned(tuple(group)) for _, group in groupby(shown, key=lambda one: one.subject)), Fraction(0)
    )
    score = earned / whole if whole else Fraction(0)
    return Scored(criterion, _verdict(shown, score), score, shown)


def _verdict(shown: tuple[Shown, ...], score: Fraction) -> Verdict:
    if score == 1:
        return Verdict.MET
    if score > 0:
        return Verdict.PARTLY
    looked_at = [one for one in shown if one.worth is not None]
    # What is vital was not there to be looked at, and nothing that was speaks against it.
    if all(one.worth != 0 for one in looked_at):
        return Verdict.NOT_LOOKED_AT
    return Verdict.NOT_MET


def _earned(group: tuple[Shown, ...]) -> Fraction:
    """Of one subject, in shares."""
    if any(one.need.vital and not one.worth for one in group):
        return Fraction(0)
    return sum((one.need.share * (one.worth or Fraction(0)) for one in group), Fraction(0))


def _shown(criterion: Criterion, target: Target, evidence: Evidence) -> Iterator[Shown]:
    """Subject by subject."""
    subjects = dict.fromkeys(subject for need in criterion.needs for subject in need.subjects(target))
    for subject in subjects:
        for need in criterion.needs:
            if subject in need.subjects(target):
                yield _one(need, subject, evidence)


def _one(need: Need, subject: str, evidence: Evidence) -> Shown:
    ground = [evidence.get((fact, subject)) for fact in need.rests_on]
    void = next((one for one in ground if one is not None and not WORTH[one.standing]), None)
    return Shown(need, subject, evidence.get((need.fact, subject)), void, all(ground))
