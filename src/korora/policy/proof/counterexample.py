"""A concrete case against a rule set that is not secure: small, named, and replayed in the running machine.

The prover finds a finite state; it is made small by leaving out every fact without which the case still
stands. Each step of that is decided by the machine that runs, not by the prover: so a case that is shown is a
case that would happen.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import z3

from korora.policy.machine.language.formula import Formula
from korora.policy.machine.language.rule import Rule
from korora.policy.machine.language.vocabulary import FUNCTIONS, RELATIONS, Sort
from korora.policy.machine.omega.properties import CONSTRAINTS, INVARIANTS, Property
from korora.policy.machine.running.classes import AccessClass, Level
from korora.policy.machine.running.machine import Answer, Machine
from korora.policy.machine.running.reading import Reader
from korora.policy.machine.running.state import Facts, State
from korora.policy.proof import translation
from korora.policy.proof.obligations import keeps


@dataclass(frozen=True, slots=True)
class Counterexample:
    """In the secure state `before` the rule says yes to `arguments`; in `after` the property is lost.

    `replayed`: the running machine said yes too, and the property is lost as its own readers see it.
    """

    rule: Rule
    broken: Property
    arguments: Mapping[str, Any]
    before: Facts
    after: Facts
    replayed: bool


def find(rule: Rule, broken: Property) -> Counterexample | None:
    """None if the rule keeps the property, or if the prover cannot tell."""
    solver = keeps(rule, broken).solver()
    if solver.check() != z3.sat:
        return None
    arguments, before = _Model(solver.model(), rule).read()
    case = _Case(rule, broken, arguments)
    if not case.stands(before):
        return Counterexample(rule, broken, arguments, before, case.next(before), False)
    small = _smallest(before, frozenset(arguments.values()), case.stands)
    return Counterexample(rule, broken, arguments, small, case.next(small), True)


@dataclass(frozen=True, slots=True)
class _Case:
    """What makes a state one against the property: secure itself, and not after the rule said yes."""

    rule: Rule
    broken: Property
    arguments: Mapping[str, Any]

    def stands(self, before: Facts) -> bool:
        now = State(before)
        if any(insecure(now)):
            return False
        then = State(before)
        if Machine([self.rule], then).decide(self.rule.request, self.arguments).answer is not Answer.YES:
            return False
        return not _kept(self.broken, now, then, self.arguments)

    def next(self, before: Facts) -> Facts:
        then = State(before)
        Machine([self.rule], then).decide(self.rule.request, self.arguments)
        return then.facts()


def insecure(state: State) -> Iterator[Property]:
    """The invariants that do not hold in this state: none, if it is secure."""
    for one in INVARIANTS:
        if not _true(one.formula, state):
            yield one


def _kept(wanted: Property, before: State, after: State, arguments: Mapping[str, Any]) -> bool:
    if wanted in CONSTRAINTS:
        return _true(wanted.formula, before, after, {"u": arguments["u"]})
    return _true(wanted.formula, after)


def _true(
    formula: Formula, state: State, after: State | None = None, subject: Mapping[str, Any] = {}
) -> bool:
    reader = Reader(state, dict.fromkeys(subject, Sort.SUBJECT), after)
    test = reader.test(formula)
    return test(reader.environment(subject.values()))


def _smallest(facts: Facts, asked: frozenset[Any], stands: Callable[[Facts], bool]) -> Facts:
    """Without every tuple that is not needed: halves first, then one by one, until nothing more can go.

    Values stay, for a function has one everywhere; those of what no tuple speaks of are left out last.
    """
    values = frozenset(fact for fact in facts if fact[0] in FUNCTIONS)
    kept, size = sorted(facts - values, key=repr), len(facts)
    while size:
        at, before = 0, len(kept)
        while at < len(kept):
            shorter = kept[:at] + kept[at + size :]
            if stands(values | frozenset(shorter)):
                kept = shorter
            else:
                at += size
        size = size // 2 if size > 1 else int(len(kept) < before)
    left = frozenset(kept)
    spoken_of = asked | {word for _, row in left for word in row}
    fewer = left | frozenset(value for value in values if value[1][0] in spoken_of)
    return fewer if stands(fewer) else left | values


class _Model:
    """The finite state that the prover found, in the words of the machine."""

    def __init__(self, model: Any, rule: Rule) -> None:
        self._model = model
        self._unknowns = translation.parameters(rule)
        self._rule = rule
        self._elements = {sort: self._universe(sort) for sort in Sort}
        self._names = self._named()

    def read(self) -> tuple[dict[str, Any], Facts]:
        symbols = translation.Symbols.any_state()
        facts = set()
        for name, relation in RELATIONS.items():
            for of in itertools.product(*(self._elements[sort] for sort in relation.sorts)):
                if z3.is_true(self._value(symbols.relations[name](*of))):
                    facts.add((name, tuple(map(self._name, of))))
        for name, function in FUNCTIONS.items():
            for of in self._elements[function.sorts[0]]:
                facts.add((name, (self._name(of), self._name(self._value(symbols.functions[name](of))))))
        given = {name: self._name(self._value(unknown)) for name, unknown in self._unknowns.items()}
        return given, frozenset(facts)

    def _universe(self, sort: Sort) -> Sequence[Any]:
        made = translation.sort(sort)
        if sort in {Sort.ACCESS, Sort.PROCEDURE}:
            return [made.constructor(n)() for n in range(made.num_constructors())]
        return list(self._model.get_universe(made) or [self._value(z3.Const(f"a-{sort}", made))])

    def _named(self) -> dict[str, Any]:
        """Parameters keep their names; the others are numbered by sort."""
        names: dict[str, Any] = {
            str(self._value(unknown)): name for name, unknown in reversed(self._unknowns.items())
        }
        for sort, elements in self._elements.items():
            for number, element in enumerate(elements, start=1):
                names.setdefault(str(element), f"{sort}-{number}")
        for number, element in enumerate(self._elements[Sort.ENTRY], start=1):
            names[str(element)] = number
        for sort in (Sort.ACCESS, Sort.PROCEDURE):
            names |= {str(element): str(element) for element in self._elements[sort]}
        names |= self._classes()
        return names

    def _classes(self) -> dict[str, AccessClass]:
        """Any finite partial order is one of categories: each class has those of all that it dominates."""
        elements = self._elements[Sort.CLASS]
        below = {
            str(one): sum(1 << n for n, other in enumerate(elements) if self._over(one, other))
            for one in elements
        }
        if all(self._over(one, other) or self._over(other, one) for one in elements for other in elements):
            ranks = {one: sum(mask & ~below[one] == 0 for mask in below.values()) - 1 for one in below}
            if max(ranks.values()) <= max(Level):
                return {one: AccessClass(Level(rank)) for one, rank in ranks.items()}
        return {one: AccessClass(Level.UA, mask) for one, mask in below.items()}

    def _over(self, high: Any, low: Any) -> bool:
        return bool(z3.is_true(self._value(translation.dominates(high, low))))

    def _name(self, element: Any) -> Any:
        return self._names[str(element)]

    def _value(self, term: Any) -> Any:
        return self._model.eval(term, model_completion=True)
