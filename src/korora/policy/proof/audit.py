"""Delete every clause of every rule in turn: each must be missed by a property, or be explained.

A clause whose deletion no property notices is either useless or guards something that nobody has written
down. Those that remain on purpose stand in `EXPLAINED`; the audit fails if one is noticed after all.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from korora.policy.machine.language.rule import Rule
from korora.policy.machine.omega.properties import CONSTRAINTS, INVARIANTS, Property
from korora.policy.machine.omega.reasons import protected_by
from korora.policy.proof.obligations import keeps

EXPLAINED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "release-access.held": "closing what is not open changes nothing; the clause makes the answer say so",
    }
)
"""Clauses (rule.label) that no property needs, and why they are there."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """What became of a rule without one clause: the property that is lost, or why none is.

    `broken` is the property that the clause is said to serve, if that one is lost; else another, or empty.
    """

    rule: str
    clause: str
    broken: str
    explanation: str = ""

    @property
    def sound(self) -> bool:
        """The clause serves what it is said to serve; or it is explained, and nothing is lost without it."""
        if self.explanation:
            return not self.broken
        return bool(self.broken) and self.broken == protected_by(self.rule, self.clause)


def audit(rules: Sequence[Rule], processes: int | None = None) -> Iterator[Deletion]:
    """Every deletion, in the order of the rules. Runs on as many processes as there are processors."""
    jobs = [(one, clause.label) for one in rules for clause in one.guard]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(_deleted, jobs, chunksize=4)


def _deleted(job: tuple[Rule, str]) -> Deletion:
    return deleted(*job)


def deleted(rule: Rule, label: str) -> Deletion:
    """The rule without this clause, held against the properties; the one it is said to serve comes first."""
    without = rule.without(label)
    broken = next((wanted.name for wanted in _in_order(rule, label) if _broken(without, wanted)), "")
    return Deletion(rule.name, label, broken, EXPLAINED.get(f"{rule.name}.{label}", ""))


def _in_order(rule: Rule, label: str) -> list[Property]:
    first = protected_by(rule.name, label)
    return sorted((*INVARIANTS, *CONSTRAINTS), key=lambda wanted: wanted.name != first)


def _broken(rule: Rule, wanted: Property) -> bool:
    result = keeps(rule, wanted).decide()
    return not result.proved and not result.unknown
