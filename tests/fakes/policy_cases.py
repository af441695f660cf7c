"""Small states as text, and changes of them: `matrix(u, o, r); object_class(o) = mid`, `-matrix(u, o, r)`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from korora.policy.machine.language.vocabulary import Sort
from korora.policy.machine.omega.rules import RULES
from korora.policy.machine.running.classes import AccessClass, Level
from korora.policy.machine.running.machine import Decision, Machine
from korora.policy.machine.running.state import Facts, State

CLASSES: Final = {
    "low": AccessClass(Level.UA),
    "mid": AccessClass(Level.RP),
    "aside": AccessClass(Level.RP, 1),
    "high": AccessClass(Level.TA),
}
_FACT: Final = re.compile(r"([+-]?)(\w+)\(([^)]*)\)(?: = ([\w-]+))?")


def facts(text: str) -> Facts:
    return changed(frozenset(), text)


def changed(before: Facts, text: str) -> Facts:
    """`+` or nothing adds, `-` takes away, `=` gives a function its value."""
    for part in filter(None, map(str.strip, text.split(";"))):
        match = _FACT.fullmatch(part)
        assert match, part
        sign, name, of, value = match.groups()
        row: tuple[Any, ...] = tuple(int(word) if word.isdigit() else word for word in of.split(", "))
        if value is not None:
            before = frozenset(fact for fact in before if (fact[0], fact[1][:1]) != (name, row))
            row = (*row, CLASSES.get(value, value))
        fact = frozenset({(name, row)})
        assert (fact <= before) is (sign == "-"), f"{part} changes nothing"
        before = before - fact if sign == "-" else before | fact
    return before


@dataclass(frozen=True)
class Case:
    """A rule says yes in `state`, with `effect`; with one of the changes of `noes`, no for that clause."""

    rule: str
    given: Mapping[str, Any]
    state: str
    effect: str
    noes: Mapping[str, str] = field(default_factory=dict)

    def yes(self) -> tuple[Decision, Facts]:
        return self._decide(facts(self.state), self.given)

    def no(self, clause: str) -> tuple[Decision, Facts, Facts]:
        """Of a change of the state, or of the request: `i := o`."""
        given, parts = dict(self.given), []
        for part in self.noes[clause].split(";"):
            name, asked, value = part.strip().partition(" := ")
            if asked:
                given[name] = CLASSES.get(value, value)
            else:
                parts.append(part)
        before = changed(facts(self.state), ";".join(parts))
        return *self._decide(before, given), before

    def _decide(self, before: Facts, given: Mapping[str, Any]) -> tuple[Decision, Facts]:
        (request,) = {one.request for one in RULES if one.name == self.rule}
        machine = Machine([one for one in RULES if one.request == request], State(before))
        decision = machine.decide(request, given)
        return decision, machine.state.facts()


def asked(rule: str, **special: Any) -> dict[str, Any]:
    """Each parameter by its own name, an entry by 1, a class by mid, but for what is special."""
    (parameters,) = [one.parameters for one in RULES if one.name == rule]
    plain = {Sort.ENTRY: 1, Sort.CLASS: CLASSES["mid"]}
    return {name: special.get(name, plain.get(sort, name)) for name, sort in parameters.items()}


def each_no(cases: list[Case]) -> Iterator[tuple[Case, str]]:
    for case in cases:
        for clause in case.noes:
            yield case, clause
