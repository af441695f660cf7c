"""The reading of a formula that decides: look-ups in a running state, made once, asked often.

A formula becomes a function of an environment: a list with a place for each parameter, each quantified
variable and each constant. A quantifier becomes a search along a relation of its body, by index.
Promise: the same answer as the prover's reading of the same formula over the same finite state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, TypeAlias

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
    conjuncts,
    free,
    normal,
)
from korora.policy.machine.language.vocabulary import WRITTEN_OUT, Sort
from korora.policy.machine.running.state import Row, State

Environment: TypeAlias = list[Any]
Test: TypeAlias = Callable[[Environment], bool]
Value: TypeAlias = Callable[[Environment], Any]
Bound: TypeAlias = frozenset[Variable]


@dataclass(slots=True)
class Reader:
    """Reads formulas with these parameters over `state`; with a prime, over `after`."""

    state: State
    parameters: Mapping[str, Sort]
    after: State | None = None
    _places: dict[Variable | Constant, int] = field(default_factory=dict)
    _template: Environment = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, sort in self.parameters.items():
            self._place(Variable(name, sort))

    def environment(self, arguments: Iterable[Any]) -> Environment:
        """For one evaluation; `arguments` in the order of the parameters."""
        made = self._template.copy()
        made[: len(self.parameters)] = arguments
        return made

    def test(self, formula: Formula) -> Test:
        return self._test(normal(formula), frozenset(Variable(*pair) for pair in self.parameters.items()))

    def value(self, term: Term) -> Value:
        if isinstance(term, Applied):
            get, argument = self._states(term.after).functions[term.function].get, self.value(term.argument)
            return lambda environment: get(argument(environment))
        return itemgetter(self._place(term))

    def row(self, terms: tuple[Term, ...]) -> Callable[[Environment], Row]:
        """The tuple of these terms."""
        if any(isinstance(term, Applied) for term in terms):
            values = [self.value(term) for term in terms]
            return lambda environment: tuple([value(environment) for value in values])
        places = [self._place(term) for term in terms if not isinstance(term, Applied)]
        if len(places) == 1:
            (place,) = places
            return lambda environment: (environment[place],)
        return itemgetter(*places) if places else lambda _: ()

    def _states(self, after: bool) -> State:
        if not after:
            return self.state
        if self.after is None:
            raise ValueError("this formula speaks of a next state, and there is none")
        return self.after

    def _place(self, term: Variable | Constant) -> int:
        if term not in self._places:
            self._places[term] = len(self._template)
            self._template.append(term.name if isinstance(term, Constant) else None)
        return self._places[term]

    def _test(self, formula: Formula, bound: Bound) -> Test:  # noqa: PLR0911  one for each kind
        match formula:
            case Holds(relation, of, after):
                holds, row = self._states(after).relations[relation].holds, self.row(of)
                return lambda environment: holds(row(environment))
            case Equal(left, right):
                return _equal(self.value(left), self.value(right))
            case Dominates(left, right):
                return _dominates(self.value(left), self.value(right))
            case Not(inner):
                test = self._test(inner, bound)
                return lambda environment: not test(environment)
            case And(parts):
                return _all([self._test(part, bound) for part in parts])
            case Or(parts):
                return _any([self._test(part, bound) for part in parts])
            case Some(variables, inner):
                return self._search(frozenset(variables), list(conjuncts(inner)), bound)
            case All():
                raise AssertionError("a normal formula has no All")

    def _search(self, wanted: Bound, parts: list[Formula], bound: Bound) -> Test:
        """Whether values for the wanted variables make all parts true."""
        ready = [part for part in parts if free(part) <= bound]
        rest = [part for part in parts if part not in ready]
        tests = [self._test(part, bound) for part in ready]
        return _all([*tests, self._deeper(wanted - bound, rest, bound)] if rest else tests)

    def _deeper(self, wanted: Bound, parts: list[Formula], bound: Bound) -> Test:
        if path := _best_path(parts, bound):
            left = [part for part in parts if part is not path]
            return self._along(path, wanted, left, bound)
        for part in parts:
            if isinstance(part, Or):
                left = [other for other in parts if other is not part]
                ways = [self._search(wanted, [*conjuncts(one), *left], bound) for one in part.parts]
                return _any(ways)
        return self._everywhere(wanted, parts, bound)

    def _along(self, path: Holds, wanted: Bound, parts: list[Formula], bound: Bound) -> Test:
        """Follow the tuples of a relation that fit what is bound."""
        fixed = tuple(position for position, term in enumerate(path.of) if free(term) <= bound)
        find = self._states(path.after).relations[path.relation].index(fixed)
        key = self.row(tuple(path.of[position] for position in fixed))
        places: list[tuple[int, int]] = []
        same: list[tuple[int, int]] = []
        met: set[Variable] = set()
        for position, term in enumerate(path.of):
            if position in fixed or not isinstance(term, Variable):
                continue
            (same if term in met else places).append((position, self._place(term)))
            met.add(term)
        inner = self._search(wanted, parts, bound | met)

        def found(environment: Environment) -> bool:
            for row in find(key(environment)):
                for position, place in places:
                    environment[place] = row[position]
                if _agree(row, same, environment) and inner(environment):
                    return True
            return False

        return found

    def _everywhere(self, wanted: Bound, parts: list[Formula], bound: Bound) -> Test:
        """No relation leads there: try all there is. For properties, never for a guard."""
        variable = min(wanted, key=lambda one: one.name)
        place, inner = self._place(variable), self._search(wanted, parts, bound | {variable})
        others = [self._place(one) for one in bound if one.sort is variable.sort]

        def found(environment: Environment) -> bool:
            everything = self._known(variable.sort).union([environment[other] for other in others])
            for value in everything:
                environment[place] = value
                if inner(environment):
                    return True
            return False

        return found

    def _known(self, sort: Sort) -> set[Any]:
        """What any fact speaks of; of a sort that is written out in full, all."""
        if written := WRITTEN_OUT.get(sort):
            return set(written)
        known = self.state.known(sort)
        return known if self.after is None else known | self.after.known(sort)


def searches_everywhere(formula: Formula, parameters: Mapping[str, Sort]) -> bool:
    """Whether deciding it would try every value of a sort: too slow for a guard."""

    class Watching(Reader):
        def _everywhere(self, wanted: Bound, parts: list[Formula], bound: Bound) -> Test:
            raise _Everywhere

    try:
        Watching(State(), parameters, State()).test(formula)
    except _Everywhere:
        return True
    return False


class _Everywhere(Exception):  # noqa: N818  an answer, not a failure
    pass


def _best_path(parts: list[Formula], bound: Bound) -> Holds | None:
    """The positive atom that fixes most, of those whose open terms are plain variables."""
    paths = [part for part in parts if isinstance(part, Holds) and _open_terms_are_plain(part, bound)]
    return max(paths, key=lambda path: sum(free(term) <= bound for term in path.of), default=None)


def _open_terms_are_plain(path: Holds, bound: Bound) -> bool:
    return all(isinstance(term, Variable) or free(term) <= bound for term in path.of)


def _agree(row: Row, same: list[tuple[int, int]], environment: Environment) -> bool:
    """A variable that stands twice in a tuple is one thing."""
    return not same or all(row[position] == environment[place] for position, place in same)


def _all(tests: list[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]

    def test(environment: Environment) -> bool:
        for one in tests:  # noqa: SIM110  a loop takes half the time of all() over a generator
            if not one(environment):
                return False
        return True

    return test


def _any(tests: list[Test]) -> Test:
    if len(tests) == 2:
        first, second = tests
        return lambda environment: first(environment) or second(environment)

    def test(environment: Environment) -> bool:
        for one in tests:  # noqa: SIM110
            if one(environment):
                return True
        return False

    return test


def _equal(left: Value, right: Value) -> Test:
    return lambda environment: bool(left(environment) == right(environment))


def _dominates(high: Value, low: Value) -> Test:
    def test(environment: Environment) -> bool:
        above, below = high(environment), low(environment)
        return above is not None and below is not None and bool(above.dominates(below))

    return test
