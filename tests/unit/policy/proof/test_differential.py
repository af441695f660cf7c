"""The rule that runs and the rule that is proved are one: same answer, same next state, on states by chance.

The prover's reading is taken as it is; only its sorts are made finite and written out, so that a state is a
disjunction for each relation, and every quantifier can be written out too.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import pytest
import z3
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fakes.policy_formulas import PARAMETERS, formulas
from fakes.policy_states import SMALL, Bending, random_state
from korora.policy.machine.language.formula import Formula
from korora.policy.machine.language.rule import Assignment, Rule, rule
from korora.policy.machine.language.vocabulary import FUNCTIONS, RELATIONS, WRITTEN_OUT, Sort
from korora.policy.machine.omega.properties import CONSTRAINTS, INVARIANTS, Property
from korora.policy.machine.omega.rules import RULES
from korora.policy.machine.running.machine import Answer, Machine
from korora.policy.machine.running.reading import Reader, searches_everywhere
from korora.policy.machine.running.state import Facts, State
from korora.policy.proof import translation
from korora.policy.proof.translation import Symbols

CASES_A_CLAUSE: Final = 3
MANY: Final = 1000
"""Cases of one quantifier: so many are left to the prover."""
SEEDS: Final = st.integers(0, 2**32)
_real_sort: Final = translation.sort


@cache
def finite(sort: Sort) -> tuple[Any, dict[Any, Any]]:
    """A prover's sort of just what SMALL has, and the prover's word for each."""
    if sort in WRITTEN_OUT:
        made = _real_sort(sort)
        return made, {
            str(made.constructor(n)()): made.constructor(n)() for n in range(made.num_constructors())
        }
    made, words = z3.EnumSort(f"finite-{sort}", [f"{sort}-{n}" for n in range(len(SMALL[sort]))])
    return made, dict(zip(SMALL[sort], words, strict=True))


def word(sort: Sort, value: Any) -> Any:
    return finite(sort)[1][str(value) if sort in WRITTEN_OUT else value]


def dominates(high: Any, low: Any) -> Any:
    pairs = itertools.product(SMALL[Sort.CLASS], repeat=2)
    return z3.Or(
        [
            z3.And(high == word(Sort.CLASS, one), low == word(Sort.CLASS, other))
            for one, other in pairs
            if one.dominates(other)
        ]
    )


@pytest.fixture(autouse=True)
def _finite_sorts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translation, "sort", lambda sort: finite(sort)[0])
    monkeypatch.setattr(translation, "dominates", dominates)


def symbols(state: State) -> Symbols:
    relations: dict[str, Any] = {}
    for name, relation in RELATIONS.items():
        rows = [tuple(map(word, relation.sorts, row)) for row in state.relations[name]]
        relations[name] = lambda *of, rows=rows: z3.Or(
            [z3.And([given == said for given, said in zip(of, row, strict=True)]) for row in rows]
        )
    functions: dict[str, Any] = {}
    for name, function in FUNCTIONS.items():
        pairs = [
            (word(function.sorts[0], argument), word(function.result, value))
            for argument, value in state.functions[name].items()
        ]
        functions[name] = lambda of, pairs=pairs: chosen(of, pairs)
    return Symbols(relations, functions)


def chosen(of: Any, pairs: list[tuple[Any, Any]]) -> Any:
    *others, (_, last) = pairs
    for argument, value in others:
        last = z3.If(of == argument, value, last)
    return last


def written_out(term: Any) -> Any:
    """Without quantifiers: each is the conjunction or disjunction of all its cases."""
    if z3.is_quantifier(term):
        words = [_words_of(term.var_sort(n)) for n in range(term.num_vars())]
        if math.prod(map(len, words)) > MANY:
            return found_by_the_prover(term)
        cases = [
            written_out(z3.simplify(z3.substitute_vars(term.body(), *reversed(of))))
            for of in itertools.product(*words)
        ]
        return z3.And(cases) if term.is_forall() else z3.Or(cases)
    if z3.is_and(term) or z3.is_or(term) or z3.is_not(term):
        return term.decl()(*map(written_out, term.children()))
    return term


def _words_of(made: Any) -> list[Any]:
    return [made.constructor(n)() for n in range(made.num_constructors())]


def found_by_the_prover(quantified: Any) -> Any:
    """A quantifier of many cases: whether there is one that decides it."""
    solver = z3.Solver()
    solver.add(z3.Not(quantified) if quantified.is_forall() else quantified)
    answer = solver.check()
    assert answer != z3.unknown
    return z3.BoolVal((answer == z3.sat) is not quantified.is_forall())


def proved_true(term: Any) -> bool:
    found = z3.simplify(written_out(z3.simplify(term)))
    assert z3.is_true(found) or z3.is_false(found), found
    return bool(z3.is_true(found))


def same_everywhere(sorts: tuple[Sort, ...], one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    anything = [z3.FreshConst(finite(sort)[0]) for sort in sorts]
    solver = z3.Solver()
    solver.add(one(*anything) != other(*anything))
    return bool(solver.check() == z3.unsat)


def agree(rule: Rule, before: State, given: dict[str, Any]) -> str:
    """The clause of a no, or another answer. Both readings must say the same, and make the same of it."""
    now, asked = symbols(before), {name: word(sort, given[name]) for name, sort in rule.parameters.items()}

    def holds(formula: Formula) -> bool:
        return proved_true(translation.formula(formula, asked, now, now))

    after = State(before.facts())
    decision = Machine([rule], after).decide(rule.request, given)
    if not holds(rule.domain):
        assert decision.answer is Answer.QUESTION
        return decision.answer
    failing = next((clause.label for clause in rule.guard if not holds(clause.condition)), "")
    assert decision.clause == failing
    assert decision.allowed is not bool(failing)
    if decision.allowed:
        next_states_agree(rule, now.after(rule, asked), now, before.facts(), after)
    return decision.clause or decision.answer


def next_states_agree(rule: Rule, proved: Symbols, now: Symbols, before: Facts, after: State) -> None:
    found = symbols(after)
    changed = {e.function if isinstance(e, Assignment) else e.relation for e in rule.effects}
    assert {name for name, _ in before ^ after.facts()} <= changed
    for name in changed:
        if name in RELATIONS:
            assert same_everywhere(RELATIONS[name].sorts, proved.relations[name], found.relations[name])
        else:
            assert same_everywhere(FUNCTIONS[name].sorts, proved.functions[name], found.functions[name])
    for name, meaning in (proved.relations | proved.functions).items():  # type: ignore[operator]
        if name not in changed:
            assert meaning is (now.relations | now.functions)[name]  # type: ignore[operator]


def bent(rule: Rule, chance: random.Random, spoilt: str) -> tuple[State, dict[str, Any]]:
    """A state and a request for which all of the guard holds, as far as it comes off, but for one clause."""
    state = random_state(chance)
    given = {name: chance.choice(SMALL[sort]) for name, sort in rule.parameters.items()}
    bending = Bending(chance, state, given, SMALL)
    for _ in range(3):
        for condition in (rule.domain, *(clause.condition for clause in rule.guard)):
            bending.bend(condition, True)
    for clause in rule.guard:
        if clause.label == spoilt:
            bending.bend(clause.condition, False)
    return state, given


_ITEMS: Final = {"u": Sort.SUBJECT, "o": Sort.OBJECT, "k": Sort.OBJECT}
ODD: Final = (
    rule("moves", _ITEMS, {"live": "live(o)"}, ["+parent(k, o)", "-parent(_, o)"]),
    rule("takes-and-gives", _ITEMS, {"live": "live(o)"}, ["-udi(o)", "+udi(k)", "-matrix(_, _, r)"]),
    rule(
        "swaps", _ITEMS, {"differ": "holds(o) != holds(k)"}, ["holds(o) := holds(k)", "holds(k) := holds(o)"]
    ),
    rule("says-twice", _ITEMS, {"other": "o != k"}, ["holds(o) := holds(k)", "holds(o) := holds(o)"]),
)
"""Rules whose effects get in each other's way: the order of effects is the same in both readings."""


@pytest.mark.parametrize("rule", [*RULES, *ODD], ids=lambda rule: rule.name)
def test_a_rule_answers_and_acts_as_it_is_proved(rule: Rule) -> None:
    labels = [clause.label for clause in rule.guard]
    seen: Counter[str] = Counter()

    @settings(max_examples=CASES_A_CLAUSE, deadline=None, derandomize=True)
    @given(SEEDS)
    def on_states_by_chance(seed: int) -> None:
        for number, spoilt in enumerate(["", "", *labels]):
            seen[agree(rule, *bent(rule, random.Random(f"{seed} {number}"), spoilt))] += 1

    on_states_by_chance()
    assert {*labels, Answer.YES} <= seen.keys()


@settings(max_examples=120, deadline=None)
@given(formulas(steps=True), SEEDS)
def test_a_formula_is_decided_as_it_is_proved(formula: Formula, seed: int) -> None:
    """If it needs no search everywhere, as no guard does: what no fact speaks of is the prover's alone."""
    assume(not searches_everywhere(formula, PARAMETERS))
    chance = random.Random(seed)
    before, after = random_state(chance), random_state(chance)
    given = {name: chance.choice(SMALL[sort]) for name, sort in PARAMETERS.items()}
    assert_alike(formula, PARAMETERS, given, before, after)


@pytest.mark.parametrize("wanted", [*INVARIANTS, *CONSTRAINTS], ids=lambda wanted: wanted.name)
def test_a_property_is_decided_as_it_is_proved(wanted: Property) -> None:
    subject = {"u": Sort.SUBJECT} if wanted in CONSTRAINTS else {}
    seen: Counter[bool] = Counter()

    @settings(max_examples=12, deadline=None, derandomize=True)
    @given(SEEDS)
    def on_states_by_chance(seed: int) -> None:
        chance = random.Random(seed)
        given = {name: chance.choice(SMALL[sort]) for name, sort in subject.items()}
        before = random_state(chance)
        after = State(before.facts()) if chance.random() < 0.5 else random_state(chance)
        if wanted in INVARIANTS and chance.random() < 0.6:
            for _ in range(4):
                Bending(chance, before, given, SMALL).bend(wanted.formula, True)
        seen[assert_alike(wanted.formula, subject, given, before, after)] += 1

    on_states_by_chance()
    assert seen[True] > 0


def assert_alike(
    formula: Formula, sorts: Mapping[str, Sort], given: Mapping[str, Any], before: State, after: State
) -> bool:
    reader = Reader(before, sorts, after)
    found = reader.test(formula)(reader.environment(given.values()))
    asked = {name: word(sort, given[name]) for name, sort in sorts.items()}
    assert proved_true(translation.formula(formula, asked, symbols(before), symbols(after))) is found
    return found
