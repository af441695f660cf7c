"""Every state that a small installation can reach, one after another: the proof's claims, looked at (P4).

Independent of the prover: the machine that runs is asked everything that can be asked with the names given,
in every state it reaches, and each step is held against every property by its own readers.
Limit: finite, and small; what it shows is that the reading that decides agrees with what was proved.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from korora.policy.machine.machine import Machine
from korora.policy.machine.properties import CONSTRAINTS, INVARIANTS
from korora.policy.machine.reading import Reader, Test
from korora.policy.machine.rule import Rule
from korora.policy.machine.state import Facts, State
from korora.policy.machine.vocabulary import Sort

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
    found, seen, waiting = Explored(), {first}, [first]
    before, after = State(first), State(first)
    machine, watch = Machine(rules, after), _Watch(before, after)
    requests = list(_requests(rules, names))
    while waiting and found.states < most:
        now = waiting.pop(0)
        found.states += 1
        before.replace(now)
        after.replace(now)
        for request, arguments in requests:
            found.decisions += 1
            if not machine.decide(request, arguments).allowed:
                continue
            found.steps += 1
            reached = after.facts()
            found.violations += [(request, arguments, name) for name in watch.broken(arguments["u"])]
            if reached not in seen:
                seen.add(reached)
                waiting.append(reached)
            after.replace(now)
    found.complete = not waiting
    return found


def _requests(rules: Iterable[Rule], names: Names) -> Iterator[tuple[str, dict[str, Any]]]:
    for request, parameters in {rule.request: rule.parameters for rule in rules}.items():
        for values in itertools.product(*(names[sort] for sort in parameters.values())):
            yield request, dict(zip(parameters, values, strict=True))


class _Watch:
    """All properties, read once for two states that change."""

    def __init__(self, before: State, after: State) -> None:
        self._invariants = [(one.name, *_read(Reader(after, {}), one.formula)) for one in INVARIANTS]
        self._constraints = [
            (one.name, *_read(Reader(before, {"u": Sort.SUBJECT}, after), one.formula)) for one in CONSTRAINTS
        ]

    def broken(self, subject: str) -> Iterator[str]:
        for name, reader, test in self._invariants:
            if not test(reader.environment(())):
                yield name
        for name, reader, test in self._constraints:
            if not test(reader.environment((subject,))):
                yield name


def _read(reader: Reader, formula: Any) -> tuple[Reader, Test]:
    return reader, reader.test(formula)
