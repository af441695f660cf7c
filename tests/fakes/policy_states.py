"""Small states by chance, bent so that a formula holds in them or not; formulas decided by trying all values.

What decides here is as plain as can be, so that it can be held against the readings that are quick.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from korora.policy.machine.language.formula import (
    All,
    And,
    Applied,
    Constant,
    Dominates,
    Equal,
    Formula,
    Holds,
    Not,
    Or,
    Some,
    Term,
    Variable,
)
from korora.policy.machine.language.vocabulary import FUNCTIONS, RELATIONS, Access, Procedure, Sort
from korora.policy.machine.running.classes import AccessClass, Level
from korora.policy.machine.running.state import State

Universe = Mapping[Sort, Sequence[Any]]
_MOST: Final = 1000
"""Of the cases of one quantifier: more are not worth the time."""

SMALL: Final[Universe] = {
    Sort.SUBJECT: ("s1", "s2", "s3"),
    Sort.OBJECT: ("o1", "o2", "o3"),
    # one above two that do not compare
    Sort.CLASS: (AccessClass(Level.RP, 1), AccessClass(Level.RP, 2), AccessClass(Level.TA, 3)),
    Sort.MIGRATION: ("m1", "m2"),
    Sort.VALUE: ("v1", "v2"),
    Sort.ENTRY: (1, 2),
    Sort.ACCESS: tuple(access.value for access in Access),
    Sort.PROCEDURE: tuple(procedure.value for procedure in Procedure),
}


def random_state(chance: random.Random, universe: Universe = SMALL) -> State:
    """Every function has a value everywhere; of each relation there is nothing, a little, or a lot."""
    state = State()
    for name, relation in RELATIONS.items():
        rows = list(itertools.product(*(universe[sort] for sort in relation.sorts)))
        for row in chance.sample(rows, min(len(rows), chance.choice((0, 1, 2, 4, 8)))):
            state.relations[name].add(row)
    for name, function in FUNCTIONS.items():
        for argument in universe[function.sorts[0]]:
            state.functions[name].set(argument, chance.choice(universe[function.result]))
    return state


def decided(  # noqa: PLR0911  one for each kind
    formula: Formula, given: Mapping[str, Any], state: State, universe: Universe, after: State | None = None
) -> bool:
    """By the meaning of each word, trying everything there is."""

    def inner(part: Formula) -> bool:
        return decided(part, given, state, universe, after)

    def value(of: Term) -> Any:
        return _value(of, given, state, after)

    match formula:
        case Holds(relation, of, primed):
            return tuple(map(value, of)) in _state(primed, state, after).relations[relation]
        case Equal(left, right):
            return bool(value(left) == value(right))
        case Dominates(left, right):
            return bool(value(left).dominates(value(right)))
        case Not(negated):
            return not inner(negated)
        case And(parts):
            return all(map(inner, parts))
        case Or(parts):
            return any(map(inner, parts))
        case Some(variables, body):
            every = _every(variables, given, universe)
            return any(decided(body, wider, state, universe, after) for wider in every)
        case All(variables, body):
            every = _every(variables, given, universe)
            return all(decided(body, wider, state, universe, after) for wider in every)


def _state(primed: bool, state: State, after: State | None) -> State:
    if not primed:
        return state
    assert after is not None
    return after


def _value(of: Term, given: Mapping[str, Any], state: State, after: State | None) -> Any:
    match of:
        case Variable(name):
            return given[name]
        case Constant(name):
            return name
        case Applied(function, argument, _, primed):
            return _state(primed, state, after).functions[function].get(_value(argument, given, state, after))


def _every(
    variables: Sequence[Variable], given: Mapping[str, Any], universe: Universe
) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*(universe[variable.sort] for variable in variables)):
        yield {**given, **{variable.name: value for variable, value in zip(variables, values, strict=True)}}


class Bending:
    """Changes a state, and what is asked of it, until formulas are as wanted; often it comes off."""

    def __init__(
        self, chance: random.Random, state: State, given: dict[str, Any], universe: Universe
    ) -> None:
        self._chance, self._state, self._given, self._universe = chance, state, given, universe

    def bend(self, formula: Formula, truth: bool) -> None:
        self._bend(formula, truth, self._given)

    def _bend(self, formula: Formula, truth: bool, given: dict[str, Any]) -> None:
        match formula:
            case Holds(relation, of):
                table, row = self._state.relations[relation], tuple(self._value(term, given) for term in of)
                (table.add if truth else table.discard)(row)
            case Equal(left, right):
                self._equal(left, right, truth, given)
            case Dominates(left, right):
                self._dominates(left, right, truth, given)
            case Not(inner):
                self._bend(inner, not truth, given)
            case And(parts) | Or(parts):
                every = isinstance(formula, And) is truth
                for part in parts if every else parts and [self._chance.choice(parts)]:
                    self._bend(part, truth, given)
            case Some(variables, inner) | All(variables, inner):
                every = isinstance(formula, All) is truth
                for wider in self._cases(variables, given) if every else [self._case(variables, given)]:
                    self._bend(inner, truth, wider)

    def _case(self, variables: Sequence[Variable], given: dict[str, Any]) -> dict[str, Any]:
        return given | {one.name: self._chance.choice(self._universe[one.sort]) for one in variables}

    def _cases(self, variables: Sequence[Variable], given: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if math.prod(len(self._universe[one.sort]) for one in variables) > _MOST:
            return (self._case(variables, given) for _ in range(_MOST))
        return _every(variables, given, self._universe)

    def _equal(self, left: Term, right: Term, truth: bool, given: dict[str, Any]) -> None:
        for term, other in ((left, right), (right, left)):
            wanted = [
                value for value in self._universe[term.sort] if (value == self._value(other, given)) is truth
            ]
            if isinstance(term, Applied) and wanted:
                self._set(term, self._chance.choice(wanted), given)
                return
            if isinstance(term, Variable) and term.name in self._given and wanted:
                self._given[term.name] = given[term.name] = self._chance.choice(wanted)
                return

    def _dominates(self, left: Term, right: Term, truth: bool, given: dict[str, Any]) -> None:
        pairs = [
            (high, low)
            for high in self._classes(left, given)
            for low in self._classes(right, given)
            if high.dominates(low) is truth
        ]
        if pairs:
            for term, value in zip((left, right), self._chance.choice(pairs), strict=True):
                self._set(term, value, given)

    def _classes(self, term: Term, given: dict[str, Any]) -> Sequence[Any]:
        return self._universe[Sort.CLASS] if isinstance(term, Applied) else [self._value(term, given)]

    def _set(self, term: Term, value: Any, given: dict[str, Any]) -> None:
        if isinstance(term, Applied):
            self._state.functions[term.function].set(self._value(term.argument, given), value)

    def _value(self, term: Term, given: dict[str, Any]) -> Any:
        return _value(term, given, self._state, None)
