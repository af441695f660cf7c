"""Criteria, and the ideal that they measure against: values, read by `scoring`.

A criterion asks one question of the requirements. What must be shown for it are its needs; each need is a
fact that evidence is filed under.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from korora.policy.evaluation.evidence import SITE, Kind, Target


class Scope(StrEnum):
    """Of whom a fact must be shown."""

    TARGET = "target"
    EACH_HOST = "each host"


@dataclass(frozen=True, slots=True)
class Need:
    """One fact. Without a `vital` one nothing else of its criterion counts, for that subject.

    `rests_on` are facts of the same subject without which this one is not believed; `raises` says what would
    raise the score where it is missing.
    """

    fact: str
    text: str
    raises: str
    vital: bool = False
    share: int = 1
    scope: Scope = Scope.TARGET
    rests_on: tuple[str, ...] = ()

    def subjects(self, target: Target) -> tuple[str, ...]:
        return (SITE,) if self.scope is Scope.TARGET else target.subjects


@dataclass(frozen=True, slots=True)
class Criterion:
    """`requirement` is the id of docs/PAPER.md; `ideal` is what a full score says."""

    id: str
    requirement: str
    asked: str
    ideal: str
    weight: int
    needs: tuple[Need, ...]


@dataclass(frozen=True, slots=True)
class Yardstick:
    """The ideal, criterion by criterion."""

    kind: Kind
    ideal: str
    criteria: tuple[Criterion, ...]

    def criterion(self, named: str) -> Criterion:
        return next(criterion for criterion in self.criteria if criterion.id == named)
