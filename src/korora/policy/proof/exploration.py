"""Every state that a small installation can reach, one after another: the proof's claims, looked at (P4).

Independent of the prover: the machine that runs is asked everything that can be asked with the names given,
in every state it reaches, and each step is held against every property by its own readers.
Limit: finite, and small; what it shows is that the reading that decides agrees with what was proved.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from korora.policy.machine.language.rule import Rule
from korora.policy.machine.language.vocabulary import WRITTEN_OUT, Sort
from korora.policy.machine.omega.properties import CONSTRAINTS, INVARIANTS
from korora.policy.machine.running.machine import Machine
from korora.policy.machine.running.reading import Reader, Test
from korora.policy.machine.running.state import Facts, State

Names = Mapping[Sort, Sequence[Any]]


@dataclass(slots=True)
class Explored:
    """`violations`: (request, arguments, property) of every insecure step; none, if the rules are secure."""

    states: int = 0
    decisions: int = 0
    steps: int = 0
    violations: list[tuple[str, dict[str, Any], str]] = field(default_factory=list)
    complete: bool = False


def explore(rules: Sequence[Rule], first: Facts, names: Names, *, most: int) -> Explored:
    """Breadth first from `first`, until every reachable state was seen, or `most` of them."""
    found, waiting = Explored(), deque([first])
    before, after = State(first), State(first)
    machine, watch = Machine(rules, after), _Watch(before, after, _everything(first, names))
    requests = list(_requests(rules, names))
    seen = {first: watch.insecure()}
    was = first
    while waiting and found.states < most:
        now = waiting.popleft()
        found.states += 1
        turn(before, was, now)
        turn(after, was, now)
        was = now
        for request, arguments in requests:
            found.decisions += 1
            if not machine.decide(request, arguments).allowed:
                continue
            found.steps += 1
            reached = after.facts()
            if reached not in seen:
                seen[reached] = watch.insecure()
                waiting.append(reached)
            broken = (*seen[reached], *watch.broken(arguments["u"]))
            found.violations += [(request, arguments, name) for name in broken]
            turn(after, reached, now)
    found.complete = not waiting
    return found


def _requests(rules: Iterable[Rule], names: Names) -> Iterator[tuple[str, dict[str, Any]]]:
    for request, parameters in {rule.request: rule.parameters for rule in rules}.items():
        for values in itertools.product(*(names[sort] for sort in parameters.values())):
            yield request, dict(zip(parameters, values, strict=True))


def _everything(first: Facts, names: Names) -> dict[Sort, set[Any]]:
    """No rule makes a name: there are those that the first state has, and those that are asked with."""
    state = State(first)
    return {sort: state.known(sort).union(names[sort], WRITTEN_OUT.get(sort, ())) for sort in Sort}


def turn(state: State, now: Facts, then: Facts) -> None:
    """From the one state to the other, by what differs."""
    values = False
    for name, row in now - then:
        if name in state.relations:
            state.relations[name].discard(row)
        values |= name in state.functions
    for name, row in then - now:
        if name in state.relations:
            state.relations[name].add(row)
        values |= name in state.functions
    for name, column in state.functions.items() if values else ():
        column.clear()
        for function, pair in then:
            if function == name:
                column.set(*pair)


class _Watch:
    """All properties, read once for two states that change."""

    def __init__(self, before: State, after: State, everything: Mapping[Sort, set[Any]]) -> None:
        subject = {"u": Sort.SUBJECT}
        self._invariants = [
            (one.name, *_read(_Within(after, {}, everything=everything), one.formula)) for one in INVARIANTS
        ]
        self._constraints = [
            (one.name, *_read(_Within(before, subject, after, everything=everything), one.formula))
            for one in CONSTRAINTS
        ]

    def insecure(self) -> tuple[str, ...]:
        """The invariants that the state after has lost."""
        return tuple(name for name, reader, test in self._invariants if not test(reader.environment(())))

    def broken(self, subject: str) -> Iterator[str]:
        """The constraints that the step is not as."""
        for name, reader, test in self._constraints:
            if not test(reader.environment((subject,))):
                yield name


@dataclass(slots=True)
class _Within(Reader):
    """What there is, is known beforehand: it need not be gathered from the facts for each search."""

    everything: Mapping[Sort, set[Any]] = field(default_factory=dict)

    def _known(self, sort: Sort) -> set[Any]:
        return self.everything[sort]


def _read(reader: Reader, formula: Any) -> tuple[Reader, Test]:
    return reader, reader.test(formula)
