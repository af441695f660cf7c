"""The prover's reading of a formula: z3 terms over uninterpreted sorts, without limit of number.

Subjects, objects, migrations, values and entries are sorts of any size; classes are any partial order; access
attributes and procedures are written out. The next state of a rule is the state before with its changes
substituted, so no frame axiom is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Final

import z3

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
from korora.policy.machine.language.rule import Assignment, Change, Rule
from korora.policy.machine.language.vocabulary import FUNCTIONS, RELATIONS, Access, Procedure, Sort

Meaning = Callable[..., Any]
"""A relation or a function of one state: z3 terms in, a z3 term out."""
Environment = Mapping[str, Any]

_ENUMERATED: Final = {Sort.ACCESS: [a.value for a in Access], Sort.PROCEDURE: [p.value for p in Procedure]}


@cache
def sort(of: Sort) -> Any:
    if of in _ENUMERATED:
        return z3.EnumSort(of.value, _ENUMERATED[of])[0]
    return z3.DeclareSort(of.value)


@cache
def _constants(of: Sort) -> dict[str, Any]:
    made = sort(of)
    return {made.constructor(n).name(): made.constructor(n)() for n in range(made.num_constructors())}


def dominates(high: Any, low: Any) -> Any:
    return _dominates()(high, low)


@cache
def _dominates() -> Any:
    return z3.Function("dominates", sort(Sort.CLASS), sort(Sort.CLASS), z3.BoolSort())


def order_of_classes() -> list[Any]:
    """Dominance is a partial order: of these axioms, and no others."""
    a, b, c = (z3.Const(name, sort(Sort.CLASS)) for name in "abc")
    return [
        z3.ForAll([a], dominates(a, a)),
        z3.ForAll([a, b], z3.Implies(z3.And(dominates(a, b), dominates(b, a)), a == b)),
        z3.ForAll([a, b, c], z3.Implies(z3.And(dominates(a, b), dominates(b, c)), dominates(a, c))),
    ]


@dataclass(frozen=True, slots=True)
class Symbols:
    """What the words of the vocabulary mean in one state."""

    relations: Mapping[str, Meaning]
    functions: Mapping[str, Meaning]

    @classmethod
    def any_state(cls) -> Symbols:
        """Of a state of which nothing is known."""
        relations = {
            name: z3.Function(name, *map(sort, relation.sorts), z3.BoolSort())
            for name, relation in RELATIONS.items()
        }
        functions = {
            name: z3.Function(name, *map(sort, function.sorts), sort(function.result))
            for name, function in FUNCTIONS.items()
        }
        return cls(relations, functions)

    def after(self, rule: Rule, environment: Environment) -> Symbols:
        """Of the state that the rule makes of this one."""
        read = partial(term, environment=environment, before=self, after=self)
        relations, functions = dict(self.relations), dict(self.functions)
        for name in {effect.relation for effect in rule.effects if isinstance(effect, Change)}:
            changes = [e for e in rule.effects if isinstance(e, Change) and e.relation == name]
            relations[name] = partial(_changed, self.relations[name], changes, read)
        for effect in rule.effects:
            if isinstance(effect, Assignment):
                there, value = read(effect.argument), read(effect.value)
                functions[effect.function] = partial(_assigned, functions[effect.function], there, value)
        return Symbols(relations, functions)


def _changed(before: Meaning, changes: list[Change], read: Callable[[Term], Any], *of: Any) -> Any:
    def matches(sign: str) -> Any:
        return z3.Or(
            [
                z3.And(
                    [
                        given == read(said)
                        for given, said in zip(of, change.of, strict=True)
                        if said is not None
                    ]
                )
                for change in changes
                if change.sign == sign
            ]
        )

    return z3.Or(z3.And(before(*of), z3.Not(matches("-"))), matches("+"))


def _assigned(before: Meaning, there: Any, value: Any, argument: Any) -> Any:
    return z3.If(argument == there, value, before(argument))


def parameters(rule: Rule) -> dict[str, Any]:
    """An unknown for each parameter."""
    return {name: z3.Const(name, sort(its)) for name, its in rule.parameters.items()}


def term(of: Term, *, environment: Environment, before: Symbols, after: Symbols) -> Any:
    match of:
        case Variable(name):
            return environment[name]
        case Constant(name, its):
            return _constants(its)[name]
        case Applied(function, argument, _, primed):
            inner = term(argument, environment=environment, before=before, after=after)
            return (after if primed else before).functions[function](inner)


def formula(  # noqa: PLR0911  one for each kind
    of: Formula, environment: Environment, before: Symbols, after: Symbols
) -> Any:
    """As a z3 term, with quantifiers."""
    terms = partial(term, environment=environment, before=before, after=after)
    inner = partial(formula, environment=environment, before=before, after=after)
    match of:
        case Holds(relation, arguments, primed):
            return (after if primed else before).relations[relation](*map(terms, arguments))
        case Equal(left, right):
            return terms(left) == terms(right)
        case Dominates(left, right):
            return dominates(terms(left), terms(right))
        case Not(negated):
            return z3.Not(inner(negated))
        case And(parts):
            return z3.And([inner(part) for part in parts])
        case Or(parts):
            return z3.Or([inner(part) for part in parts])
        case Some(variables, body) | All(variables, body):
            bound = {
                variable.name: z3.FreshConst(sort(variable.sort), variable.name) for variable in variables
            }
            quantified = formula(body, {**environment, **bound}, before, after)
            kind = z3.ForAll if isinstance(of, All) else z3.Exists
            return kind(list(bound.values()), quantified)
