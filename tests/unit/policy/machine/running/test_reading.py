"""The reading that decides agrees with trying everything, and no guard has to search everywhere."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.policy_formulas import PARAMETERS, formulas
from fakes.policy_states import SMALL, decided, random_state
from korora.policy.machine.language import notation
from korora.policy.machine.language.formula import Formula
from korora.policy.machine.language.vocabulary import Sort
from korora.policy.machine.omega.properties import CONSTRAINTS, INVARIANTS
from korora.policy.machine.omega.rules import RULES
from korora.policy.machine.running.reading import Reader, searches_everywhere
from korora.policy.machine.running.state import Facts, Positions, State, Table


def holds(text: str, facts: Facts = frozenset(), given: Mapping[str, Any] = {}, **sorts: Sort) -> bool:
    reader = Reader(State(facts), sorts)
    test = reader.test(notation.formula(text, sorts))
    return test(reader.environment(given[name] for name in sorts))


def given_from(chance: random.Random) -> dict[str, Any]:
    return {name: chance.choice(SMALL[sort]) for name, sort in PARAMETERS.items()}


@settings(max_examples=400, deadline=None)
@given(formulas(), st.integers(0, 2**32))
def test_a_formula_is_decided_as_if_everything_was_tried(formula: Formula, seed: int) -> None:
    chance = random.Random(seed)
    state, asked = random_state(chance), given_from(chance)
    reader = Reader(state, PARAMETERS)
    known = {sort: _known(sort, asked, state) for sort in Sort}
    assert reader.test(formula)(reader.environment(asked.values())) is decided(formula, asked, state, known)


@settings(max_examples=400, deadline=None)
@given(formulas(steps=True), st.integers(0, 2**32))
def test_so_is_a_formula_about_a_step(formula: Formula, seed: int) -> None:
    chance = random.Random(seed)
    before, after, asked = random_state(chance), random_state(chance), given_from(chance)
    reader = Reader(before, PARAMETERS, after)
    known = {sort: _known(sort, asked, before, after) for sort in Sort}
    found = reader.test(formula)(reader.environment(asked.values()))
    assert found is decided(formula, asked, before, known, after)


def _known(sort: Sort, asked: Mapping[str, Any], *states: State) -> list[Any]:
    """What there is: all that is spoken of, by a fact or by the request; accesses and procedures all."""
    if sort in {Sort.ACCESS, Sort.PROCEDURE}:
        return list(SMALL[sort])
    known = {asked[name] for name, its in PARAMETERS.items() if its is sort}
    return sorted(known.union(*(state.known(sort) for state in states)))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([*INVARIANTS, *CONSTRAINTS]), st.integers(0, 2**32))
def test_a_property_is_decided_as_if_everything_was_tried(wanted: Any, seed: int) -> None:
    chance = random.Random(seed)
    before = random_state(chance)
    after = State(before.facts())
    after.relations["log"].add((2, "s1", "submit", "o1"))
    subject = {"u": "s1"} if wanted in CONSTRAINTS else {}
    reader = Reader(before, dict.fromkeys(subject, Sort.SUBJECT), after)
    found = reader.test(wanted.formula)(reader.environment(subject.values()))
    assert found is decided(wanted.formula, subject, before, SMALL, after)


def test_all_accesses_and_all_procedures_are_there_whatever_the_facts_say() -> None:
    facts: Facts = frozenset({("matrix", ("s", "o", "r")), ("executes", ("submit", "s"))})
    pair, sorts = {"s": "s", "o": "o"}, {"s": Sort.SUBJECT, "o": Sort.OBJECT}
    assert holds("some x: not matrix(s, o, x)", facts, pair, **sorts)
    assert not holds("all x: matrix(s, o, x)", facts, pair, **sorts)
    assert holds("some t: not executes(t, s)", facts, pair, **sorts)


def test_what_is_asked_about_is_there_even_if_no_fact_speaks_of_it() -> None:
    assert holds("some k: not live(k) and k = o", frozenset(), {"o": "new"}, o=Sort.OBJECT)
    assert not holds("all k: live(k)", frozenset({("live", ("old",))}), {"o": "new"}, o=Sort.OBJECT)


def test_a_variable_that_stands_twice_in_a_tuple_is_one_thing() -> None:
    loop: Facts = frozenset({("parent", ("a", "a"))})
    line: Facts = frozenset({("parent", ("a", "b"))})
    assert holds("some k: parent(k, k)", loop)
    assert not holds("some k: parent(k, k)", line)


def test_nothing_dominates_a_class_that_is_not_known() -> None:
    sorts = {"o": Sort.OBJECT, "s": Sort.SUBJECT}
    for text in ("object_class(o) >= subject_class(s)", "subject_class(s) >= object_class(o)"):
        assert not holds(text, frozenset(), {"o": "o", "s": "s"}, **sorts)


def test_a_next_state_must_be_there_to_speak_of_it() -> None:
    with pytest.raises(ValueError, match="next state"):
        Reader(State(), {}).test(notation.formula("some o: live'(o)"))


def test_one_reading_serves_many_states_in_turn() -> None:
    state = State()
    reader = Reader(state, {"o": Sort.OBJECT})
    test = reader.test(notation.formula("some k: parent(k, o)", {"o": Sort.OBJECT}))
    assert not test(reader.environment(["b"]))
    state.relations["parent"].add(("a", "b"))
    assert test(reader.environment(["b"]))
    state.relations["parent"].discard(("a", "b"))
    assert not test(reader.environment(["b"]))


def test_no_guard_and_no_domain_searches_everywhere() -> None:
    for rule in RULES:
        for formula in (rule.domain, *(clause.condition for clause in rule.guard)):
            assert not searches_everywhere(formula, rule.parameters)


def test_no_guard_goes_through_a_whole_relation(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Positions] = []
    index = Table.index

    def watched(self: Table, positions: Positions) -> Any:
        asked.append(positions)
        return index(self, positions)

    monkeypatch.setattr(Table, "index", watched)
    for rule in RULES:
        for clause in rule.guard:
            Reader(State(), rule.parameters).test(clause.condition)
    assert asked
    assert () not in asked


@pytest.mark.parametrize(
    "text",
    ["some k: k != o", "all k: not live(k) -> cdi(o)", "all q: object_class(o) >= subject_class(q)"],
)
def test_what_would_search_everywhere_is_told(text: str) -> None:
    assert searches_everywhere(notation.formula(text, {"o": Sort.OBJECT}), {"o": Sort.OBJECT})
