"""A rule ω as data: whom it concerns, what must hold, what changes. One value, two readings (P2, P4).

A request that lies in no rule's domain is a *question*; in two of one name's, a defect that the proof finds.
The domain looks at the request alone, so that whether a rule covers it never depends on the state.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from korora.policy.machine.language import notation
from korora.policy.machine.language.formula import (
    TRUE,
    And,
    Applied,
    Dominates,
    Equal,
    Formula,
    Not,
    Or,
    Term,
)
from korora.policy.machine.language.vocabulary import FUNCTIONS, RELATIONS, Sort

ANY: Final = "_"
"""In what an effect takes away: whatever stands there."""
_EFFECT: Final = re.compile(r"([+-])\s*(\w+)\((.*)\)|(\w+)\((.*)\)\s*:=\s*(\S.*)")
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,63}")


@dataclass(frozen=True, slots=True)
class Clause:
    """One thing that must hold; its label becomes the reason of a *no*."""

    label: str
    condition: Formula


@dataclass(frozen=True, slots=True)
class Change:
    """`+` adds a tuple, `-` takes away those that match (None: whatever stands there)."""

    sign: Literal["+", "-"]
    relation: str
    of: tuple[Term | None, ...]


@dataclass(frozen=True, slots=True)
class Assignment:
    """The function has this value there, in the next state."""

    function: str
    argument: Term
    value: Term


Effect = Change | Assignment


@dataclass(frozen=True, slots=True)
class Rule:
    """Who asks for `request` with these parameters, in this domain: yes if all of the guard holds."""

    name: str
    request: str
    parameters: Mapping[str, Sort]
    guard: tuple[Clause, ...]
    effects: tuple[Effect, ...]
    domain: Formula = TRUE
    meaning: str = field(default="", compare=False)

    def without(self, label: str) -> Rule:
        """The same with one clause deleted. KeyError if it has none of that label."""
        left = tuple(clause for clause in self.guard if clause.label != label)
        if len(left) == len(self.guard):
            raise KeyError(label)
        return Rule(self.name, self.request, self.parameters, left, self.effects, self.domain, self.meaning)


def rule(
    name: str,
    parameters: Mapping[str, Sort],
    guard: Mapping[str, str],
    effects: Sequence[str],
    *,
    request: str = "",
    domain: str = "",
    meaning: str = "",
) -> Rule:
    """Read a rule from its text. ValueError names the rule, and what is wrong with it."""
    try:
        return _read(name, dict(parameters), guard, effects, request or name, domain, meaning)
    except ValueError as error:
        raise ValueError(f"rule {name[:64]!r}: {error}") from error


def _read(
    name: str,
    parameters: dict[str, Sort],
    guard: Mapping[str, str],
    effects: Sequence[str],
    request: str,
    domain: str,
    meaning: str,
) -> Rule:
    for word in (name, request, *guard):
        if not _NAME.fullmatch(word):
            raise ValueError(f"{word[:64]!r} is no name: small letters, digits and hyphens")
    _parameters(parameters)
    within = _within(notation.formula(domain, parameters), domain) if domain else TRUE
    clauses = tuple(
        Clause(label, _now(notation.formula(text, parameters), text)) for label, text in guard.items()
    )
    changes = tuple(_effect(text, parameters) for text in effects)
    return Rule(name, request, parameters, clauses, changes, within, meaning)


def _parameters(parameters: Mapping[str, Sort]) -> None:
    for word in parameters:
        notation.variable(word)
    if ANY in parameters:
        raise ValueError(f"{ANY!r} is no name for a variable: it is whatever stands there")
    if parameters.get("u") is not Sort.SUBJECT:
        raise ValueError("among its parameters is u, the subject that asks")


def _within(formula: Formula, text: str) -> Formula:
    if not _of_the_request_alone(formula):
        raise ValueError(f"a domain looks at the request alone: {text}")
    return formula


def _of_the_request_alone(formula: Formula) -> bool:
    match formula:
        case And(parts) | Or(parts):
            return all(map(_of_the_request_alone, parts))
        case Not(inner):
            return _of_the_request_alone(inner)
        case Equal(left, right) | Dominates(left, right):
            return not isinstance(left, Applied) and not isinstance(right, Applied)
        case _:
            return False


def _now(formula: Formula, text: str) -> Formula:
    if "'" in text:
        raise ValueError(f"a guard knows nothing of the next state: {text}")
    return formula


def _effect(text: str, parameters: dict[str, Sort]) -> Effect:
    if "'" in text:
        raise ValueError(f"an effect knows nothing of the next state: {text}")
    match = _EFFECT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"no effect: {text!r}; write +relation(…), -relation(…) or function(…) := …")
    sign, relation, of, function, argument, value = match.groups()
    if function:
        return _assignment(function, argument, value, parameters)
    return _change("+" if sign == "+" else "-", relation, of, parameters)


def _change(sign: Literal["+", "-"], relation: str, of: str, parameters: dict[str, Sort]) -> Change:
    if relation not in RELATIONS:
        raise ValueError(f"{relation!r} is no relation of the vocabulary")
    words = [word.strip() for word in of.split(",")]
    sorts = RELATIONS[relation].sorts
    if len(words) != len(sorts):
        raise ValueError(f"{relation} is of {len(sorts)}, not of {len(words)}")
    terms = tuple(None if word == ANY else notation.term(word, parameters) for word in words)
    for found, sort in zip(terms, sorts, strict=True):
        if found is None and sign == "+":
            raise ValueError(f"+{relation}({of}): what is added must be said")
        if found is not None and found.sort is not sort:
            raise ValueError(f"{relation}({of}): {notation.text_of(found)} is {found.sort}, not {sort}")
    return Change(sign, relation, terms)


def _assignment(function: str, argument: str, value: str, parameters: dict[str, Sort]) -> Assignment:
    if function not in FUNCTIONS:
        raise ValueError(f"{function!r} is no function of the vocabulary")
    where, becomes = notation.term(argument.strip(), parameters), notation.term(value.strip(), parameters)
    if where.sort is not FUNCTIONS[function].sorts[0] or becomes.sort is not FUNCTIONS[function].result:
        raise ValueError(f"{function}({argument}) := {value}: the sorts differ")
    return Assignment(function, where, becomes)
