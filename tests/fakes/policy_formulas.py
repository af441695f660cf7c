"""Formulas of every kind, drawn at random: sorts right, bound variables used before they are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from hypothesis import strategies as st

from korora.policy.machine.language.formula import (
    FALSE,
    TRUE,
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
from korora.policy.machine.language.vocabulary import CONSTANTS, FUNCTIONS, RELATIONS, Sort

_One = TypeVar("_One")
_Kind = Callable[[list[Variable], int], Formula]

PARAMETERS: Final[Mapping[str, Sort]] = {
    "s": Sort.SUBJECT,
    "o": Sort.OBJECT,
    "k": Sort.OBJECT,
    "c": Sort.CLASS,
    "m": Sort.MIGRATION,
    "v": Sort.VALUE,
    "n": Sort.ENTRY,
    "x": Sort.ACCESS,
    "t": Sort.PROCEDURE,
}


@st.composite
def formulas(draw: st.DrawFn, *, steps: bool = False, depth: int = 3) -> Formula:
    """With PARAMETERS open; with `steps`, of the next state too."""
    return _Drawing(draw, steps).formula([Variable(*pair) for pair in PARAMETERS.items()], depth)


class _Drawing:
    def __init__(self, draw: st.DrawFn, steps: bool) -> None:
        self._draw, self._steps = draw, steps

    def formula(self, scope: list[Variable], depth: int) -> Formula:
        kinds: list[_Kind] = [self._atom]
        if depth:
            kinds += [self._negated, self._joined, self._quantified]
        return self._one(kinds)(scope, depth - 1)

    def _atom(self, scope: list[Variable], _: int) -> Formula:
        return self._one([self._holds, self._holds, self._equal, self._dominates, self._constant])(scope)

    def _negated(self, scope: list[Variable], depth: int) -> Formula:
        return Not(self.formula(scope, depth))

    def _joined(self, scope: list[Variable], depth: int) -> Formula:
        parts = tuple(self.formula(scope, depth) for _ in range(self._one([2, 2, 3])))
        return And(parts) if self._one([True, False]) else Or(parts)

    def _quantified(self, scope: list[Variable], depth: int) -> Formula:
        """Its variables stand in atoms first, so that their sorts are known wherever they are compared."""
        names = [f"q{len(scope) + number}" for number in range(self._one([1, 1, 2]))]
        bound = tuple(Variable(name, self._one(list(Sort))) for name in names)
        wider = [*scope, *bound]
        led = tuple(self._maybe_negated(self._leads_to(variable, wider)) for variable in bound)
        if self._one([True, False]):
            return Some(bound, And((*led, self.formula(wider, depth))))
        return All(bound, Or((Not(And(led) if len(led) > 1 else led[0]), self.formula(wider, depth))))

    def _maybe_negated(self, formula: Formula) -> Formula:
        """Negated, it tells the sort and is no way to search."""
        return Not(formula) if self._one([False, False, True]) else formula

    def _leads_to(self, variable: Variable, scope: list[Variable]) -> Formula:
        places = [
            (name, place)
            for name, relation in RELATIONS.items()
            for place, sort in enumerate(relation.sorts)
            if sort is variable.sort
        ]
        if not places:  # no relation speaks of classes
            return Equal(Applied("object_class", self._term(Sort.OBJECT, scope, 0), Sort.CLASS), variable)
        name, place = self._one(places)
        of = [self._term(sort, scope, 1) for sort in RELATIONS[name].sorts]
        return Holds(name, (*of[:place], variable, *of[place + 1 :]), self._primed())

    def _holds(self, scope: list[Variable]) -> Formula:
        name = self._one(list(RELATIONS))
        return Holds(
            name, tuple(self._term(sort, scope, 1) for sort in RELATIONS[name].sorts), self._primed()
        )

    def _equal(self, scope: list[Variable]) -> Formula:
        sort = self._one(list(Sort))
        return Equal(self._term(sort, scope, 1), self._term(sort, scope, 1))

    def _dominates(self, scope: list[Variable]) -> Formula:
        return Dominates(self._term(Sort.CLASS, scope, 1), self._term(Sort.CLASS, scope, 1))

    def _constant(self, _: list[Variable]) -> Formula:
        return self._one([TRUE, FALSE])

    def _term(self, sort: Sort, scope: list[Variable], depth: int) -> Term:
        plain: list[Term] = [variable for variable in scope if variable.sort is sort]
        plain += [Constant(name, its) for name, its in CONSTANTS.items() if its is sort]
        applied = [name for name, function in FUNCTIONS.items() if function.result is sort and depth]
        if not applied or self._one([True, False]):
            return self._one(plain)
        name = self._one(applied)
        return Applied(name, self._term(FUNCTIONS[name].sorts[0], scope, depth - 1), sort, self._primed())

    def _primed(self) -> bool:
        return self._steps and self._one([False, True])

    def _one(self, of: Sequence[_One]) -> _One:
        return self._draw(st.sampled_from(of))
