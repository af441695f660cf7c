"""Formulas over a state: guarded first-order logic with the words of `vocabulary`, as values.

They have three readings: text (`notation`), a decision over a running state (`reading`), and a formula of a
prover (`policy.proof`). Limit: nothing here knows any of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from korora.policy.machine.language.vocabulary import Sort


@dataclass(frozen=True, slots=True)
class Variable:
    name: str
    sort: Sort


@dataclass(frozen=True, slots=True)
class Constant:
    """An access attribute or a procedure."""

    name: str
    sort: Sort


@dataclass(frozen=True, slots=True)
class Applied:
    """A function of the state; `after`: of the next one."""

    function: str
    argument: Term
    sort: Sort
    after: bool = False


Term: TypeAlias = Variable | Constant | Applied


@dataclass(frozen=True, slots=True)
class Holds:
    """The relation holds of these; `after`: in the next state."""

    relation: str
    of: tuple[Term, ...]
    after: bool = False


@dataclass(frozen=True, slots=True)
class Equal:
    left: Term
    right: Term


@dataclass(frozen=True, slots=True)
class Dominates:
    """The left class is at least the right one: its level as high, its categories a superset."""

    left: Term
    right: Term


@dataclass(frozen=True, slots=True)
class Not:
    inner: Formula


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple[Formula, ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple[Formula, ...]


@dataclass(frozen=True, slots=True)
class Some:
    variables: tuple[Variable, ...]
    inner: Formula


@dataclass(frozen=True, slots=True)
class All:
    variables: tuple[Variable, ...]
    inner: Formula


Formula: TypeAlias = Holds | Equal | Dominates | Not | And | Or | Some | All

TRUE: Formula = And(())
FALSE: Formula = Or(())


def normal(formula: Formula, *, negated: bool = False) -> Formula:
    """The same, or its negation, with `Not` on atoms alone and `All` as the absence of a counterexample.

    What is left of quantifiers is Some and Not(Some): a search, which is how a running state answers.
    """
    match formula:
        case Not(inner):
            return normal(inner, negated=not negated)
        case And(parts) | Or(parts):
            conjunction = isinstance(formula, And) is not negated
            inner_parts = tuple(normal(part, negated=negated) for part in parts)
            return And(inner_parts) if conjunction else Or(inner_parts)
        case All(variables, inner):
            found = Some(variables, normal(inner, negated=True))
            return found if negated else Not(found)
        case Some(variables, inner):
            found = Some(variables, normal(inner))
            return Not(found) if negated else found
        case _:
            return Not(formula) if negated else formula


def conjuncts(formula: Formula) -> Iterator[Formula]:
    if isinstance(formula, And):
        for part in formula.parts:
            yield from conjuncts(part)
    else:
        yield formula


def free(formula: Formula | Term) -> frozenset[Variable]:  # noqa: PLR0911  one for each kind
    """The variables that a formula or a term leaves open."""
    match formula:
        case Variable():
            return frozenset({formula})
        case Constant():
            return frozenset()
        case Applied(_, argument):
            return free(argument)
        case Holds(_, of):
            return frozenset().union(*map(free, of))
        case Equal(left, right) | Dominates(left, right):
            return free(left) | free(right)
        case Not(inner):
            return free(inner)
        case And(parts) | Or(parts):
            return frozenset().union(*map(free, parts))
        case Some(variables, inner) | All(variables, inner):
            return free(inner) - frozenset(variables)
