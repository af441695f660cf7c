"""What has to be proved, and whether it is: every rule keeps every property, for states of any size (P4).

For a rule and an invariant: if all invariants hold, the rule covers the request and its guard holds, then the
invariant holds in the next state. For a constraint: if so, the step is as the constraint says. Beside it: no
two rules of one request claim the same, every rule can be used at all, and the first state is secure.
"""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import z3

from korora.policy.machine.language.formula import Formula
from korora.policy.machine.language.rule import Rule
from korora.policy.machine.omega.properties import CONSTRAINTS, INVARIANTS, Property
from korora.policy.proof import translation
from korora.policy.proof.translation import Symbols

DEADLINE_MS: Final = 20_000
"""For one obligation. What is not proved by then counts as not proved."""
DETERMINISM: Final = "determinism"
USABLE: Final = "can-be-used"
INITIAL: Final = "initial-state"


@dataclass(frozen=True, slots=True)
class Result:
    """`rule` is one rule, or the request whose rules were held against each other."""

    rule: str
    property: str
    proved: bool
    seconds: float
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class Obligation:
    """Proved if no state and request satisfy `negation`."""

    rule: str
    property: str
    negation: tuple[Any, ...]

    def decide(self) -> Result:
        began = time.perf_counter()
        answer = self.solver().check()
        seconds = round(time.perf_counter() - began, 4)
        return Result(self.rule, self.property, answer == z3.unsat, seconds, answer == z3.unknown)

    def solver(self) -> Any:
        solver = z3.Solver()
        solver.set("timeout", DEADLINE_MS)
        solver.add(*self.negation)
        return solver


def prove(rules: Sequence[Rule], processes: int | None = None) -> Iterator[Result]:
    """Everything that has to hold of a rule set, rule by rule, on as many processes as processors."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for results in pool.imap(of_rule, rules):
            yield from results
    yield from _deterministic(rules)
    yield _first_state_is_secure()


def of_rule(rule: Rule) -> list[Result]:
    """That one rule keeps every property, and can be used."""
    step = _Step.of(rule, INVARIANTS)  # once: to write it down takes longer than most proofs
    return [*(step.keeps(wanted).decide() for wanted in (*INVARIANTS, *CONSTRAINTS)), step.usable()]


def keeps(rule: Rule, wanted: Property, given: Sequence[Property] = INVARIANTS) -> Obligation:
    """That the rule keeps the property, where the given ones held before."""
    return _Step.of(rule, given).keeps(wanted)


@dataclass(frozen=True, slots=True)
class _Step:
    """Any step that the rule takes. `taken`: that it is one, from a state with the given properties."""

    rule: Rule
    unknowns: dict[str, Any]
    before: Symbols
    after: Symbols
    taken: tuple[Any, ...]

    @classmethod
    def of(cls, rule: Rule, given: Sequence[Property]) -> _Step:
        before, unknowns = Symbols.any_state(), translation.parameters(rule)
        after = before.after(rule, unknowns)
        return cls(rule, unknowns, before, after, tuple(_taken(rule, unknowns, before, given)))

    def keeps(self, wanted: Property) -> Obligation:
        if wanted in CONSTRAINTS:
            kept = translation.formula(wanted.formula, {"u": self.unknowns["u"]}, self.before, self.after)
        else:
            kept = translation.formula(wanted.formula, {}, self.after, self.after)
        return Obligation(self.rule.name, wanted.name, (*self.taken, z3.Not(kept)))

    def usable(self) -> Result:
        """A guard that nothing satisfies would keep every property, and be of no use."""
        possible = Obligation(self.rule.name, USABLE, self.taken)
        began = time.perf_counter()
        found = possible.solver().check() == z3.sat
        return Result(self.rule.name, USABLE, found, round(time.perf_counter() - began, 4))


def _taken(rule: Rule, unknowns: dict[str, Any], before: Symbols, given: Sequence[Property]) -> list[Any]:
    def now(formula: Formula) -> Any:
        return translation.formula(formula, unknowns, before, before)

    held = [translation.formula(one.formula, {}, before, before) for one in given]
    guard = [now(clause.condition) for clause in rule.guard]
    return [*translation.order_of_classes(), *held, now(rule.domain), *guard]


def _deterministic(rules: Sequence[Rule]) -> Iterator[Result]:
    by_request: dict[str, list[Rule]] = {}
    for rule in rules:
        by_request.setdefault(rule.request, []).append(rule)
    for request, its in by_request.items():
        began = time.perf_counter()
        pairs = itertools.combinations(its, 2)
        apart = all(overlap(one, other).decide().proved for one, other in pairs)
        yield Result(request, DETERMINISM, apart, round(time.perf_counter() - began, 4))


def overlap(one: Rule, other: Rule) -> Obligation:
    """That no request lies in both domains."""
    unknowns, anything = translation.parameters(one), Symbols.any_state()
    both = [translation.formula(rule.domain, unknowns, anything, anything) for rule in (one, other)]
    return Obligation(one.request, DETERMINISM, tuple(both))


def _first_state_is_secure() -> Result:
    """The empty one; what an installation begins with is held against the invariants when it begins."""
    nothing = Symbols(
        {name: lambda *_: z3.BoolVal(False) for name in Symbols.any_state().relations},
        Symbols.any_state().functions,
    )
    secure = [translation.formula(one.formula, {}, nothing, nothing) for one in INVARIANTS]
    return Obligation(INITIAL, "every-invariant", (z3.Not(z3.And(secure)),)).decide()
