"""A state that runs holds what plain sets and dicts would, however it is cut up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from korora.policy.machine.language.vocabulary import FUNCTIONS, RELATIONS, Sort
from korora.policy.machine.running.classes import AccessClass, Level
from korora.policy.machine.running.state import SHARDS, Column, Facts, Index, State, Table
from korora.policy.proof.exploration import turn

EACH = pytest.mark.parametrize("shards", [1, SHARDS])
ROWS = st.tuples(st.sampled_from("ab"), st.sampled_from("ab"), st.integers(0, 2))
CHANGES = st.lists(st.tuples(st.sampled_from(["add", "discard"]), ROWS), max_size=40)
PLACES = st.lists(st.sampled_from([(0,), (1,), (2,), (0, 2), (1, 2), (0, 1, 2)]), max_size=4)


def picked(row: tuple[Any, ...], positions: tuple[int, ...]) -> tuple[Any, ...]:
    return tuple(row[position] for position in positions)


@EACH
@settings(max_examples=60, deadline=None)
@given(early=PLACES, changes=CHANGES, late=PLACES)
def test_a_table_is_a_set_and_its_indexes_are_groups_of_it(
    shards: int, early: list[tuple[int, ...]], changes: list[tuple[str, Any]], late: list[tuple[int, ...]]
) -> None:
    plain: set[Any] = set()
    table = Table(shards)
    finds = {positions: table.index(positions) for positions in early}
    for change, row in changes:
        getattr(table, change)(row)
        getattr(plain, change)(row)
        assert (row in table) is (row in plain)
    finds |= {positions: table.index(positions) for positions in late}
    assert len(table) == len(plain)
    assert sorted(table) == sorted(plain)
    for positions, find in finds.items():
        for row in [("a", "a", 0), ("b", "a", 2), *plain]:
            key = picked(row, positions)
            assert sorted(find(key)) == sorted(one for one in plain if picked(one, positions) == key)


@EACH
def test_by_no_positions_all_is_found(shards: int) -> None:
    table = Table(shards)
    find = table.index(())
    for row in (("a",), ("b",)):
        table.add(row)
    assert sorted(find(())) == [("a",), ("b",)]


@EACH
@settings(max_examples=60, deadline=None)
@given(changes=CHANGES)
def test_an_index_keeps_no_key_that_leads_nowhere(shards: int, changes: list[tuple[str, Any]]) -> None:
    plain: set[Any] = set()
    index = Index((0, 2), shards)
    for change, row in changes:
        getattr(index, change)(row)
        getattr(plain, change)(row)
    assert sum(map(len, index._shards)) == len({picked(row, (0, 2)) for row in plain})


@EACH
@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(st.text(max_size=2), st.integers())))
def test_a_column_is_a_dict_that_knows_nothing_else(shards: int, pairs: list[tuple[str, int]]) -> None:
    column, plain = Column(shards), dict(pairs)
    for argument, value in pairs:
        column.set(argument, value)
    assert dict(column.items()) == plain
    assert len(list(column.items())) == len(plain)
    for argument in ("", "a", "zz", *plain):
        assert column.get(argument) == plain.get(argument)
    column.clear()
    assert list(column.items()) == []


TOP = AccessClass(Level.VTPM, 1)
FACTS: Facts = frozenset(
    {
        ("live", ("o",)),
        ("live", ("k",)),
        ("parent", ("k", "o")),
        ("matrix", ("s", "o", "r")),
        ("log", (1, "s", "submit", "o")),
        ("object_class", ("o", TOP)),
        ("holds", ("o", "v")),
    }
)

OTHER: Facts = frozenset({("matrix", ("s", "k", "w")), ("holds", ("k", "v2"))})


@EACH
def test_a_state_gives_back_the_facts_it_was_given(shards: int) -> None:
    assert State(FACTS, shards=shards).facts() == FACTS
    assert State(shards=shards).facts() == frozenset()


@EACH
def test_indexes_follow_when_a_state_holds_other_facts(shards: int) -> None:
    state = State(FACTS, shards=shards)
    find = state.relations["matrix"].index((0,))
    turn(state, FACTS, OTHER)
    assert state.facts() == OTHER
    assert list(find(("s",))) == [("s", "k", "w")]
    assert state.functions["holds"].get("o") is None
    turn(state, OTHER, FACTS)
    assert state.facts() == FACTS
    assert list(find(("s",))) == [("s", "o", "r")]


@EACH
def test_after_a_rehearsal_everything_is_as_it_was_before(shards: int) -> None:
    state = State(FACTS, shards=shards)
    find = state.relations["matrix"].index((0,))
    with state.rehearsal():
        state.relations["matrix"].discard(("s", "o", "r"))
        state.relations["matrix"].add(("s", "k", "w"))
        state.relations["matrix"].add(("s", "k", "w"))
        state.relations["live"].discard(("nothing",))
        for value in ("v2", "v3"):
            state.functions["holds"].set("o", value)
            state.functions["holds"].set("k", value)
        assert state.facts() != FACTS
    assert state.facts() == FACTS
    assert list(find(("s",))) == [("s", "o", "r")]
    state.relations["matrix"].add(("s", "k", "w"))
    assert state.facts() == FACTS | {("matrix", ("s", "k", "w"))}


@EACH
def test_a_rehearsal_that_breaks_off_leaves_nothing_behind(shards: int) -> None:
    state = State(FACTS, shards=shards)

    def break_off() -> None:
        with state.rehearsal():
            state.relations["live"].add(("k",))
            raise LookupError

    with pytest.raises(LookupError):
        break_off()
    assert state.facts() == FACTS


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc"), st.sampled_from("abc")), max_size=20))
def test_any_rehearsal_is_undone(changes: list[tuple[bool, str, str]]) -> None:
    before = frozenset({("parent", ("a", "b")), ("holds", ("a", "b"))})
    state = State(before)
    with state.rehearsal():
        for adds, one, other in changes:
            table = state.relations["parent"]
            (table.add if adds else table.discard)((one, other))
            state.functions["holds"].set(one, other)
    assert state.facts() == before


@EACH
def test_known_is_all_of_a_sort_that_any_fact_speaks_of(shards: int) -> None:
    state = State(FACTS, shards=shards)
    known = {sort: state.known(sort) for sort in Sort}
    assert known == {
        Sort.SUBJECT: {"s"},
        Sort.OBJECT: {"o", "k"},
        Sort.CLASS: {TOP},
        Sort.MIGRATION: set(),
        Sort.VALUE: {"v"},
        Sort.ENTRY: {1},
        Sort.ACCESS: {"r"},
        Sort.PROCEDURE: {"submit"},
    }


def test_a_state_has_every_word_of_the_vocabulary_and_no_other() -> None:
    assert State().relations.keys() == RELATIONS.keys()
    assert State().functions.keys() == FUNCTIONS.keys()
    with pytest.raises(KeyError):
        State(frozenset({("alive", ("o",))}))


LEVELS = st.builds(AccessClass, st.sampled_from(Level), st.integers(0, 7))


@given(LEVELS, LEVELS, LEVELS)
def test_dominance_is_a_partial_order(one: AccessClass, two: AccessClass, three: AccessClass) -> None:
    assert one.dominates(one)
    assert one == two or not (one.dominates(two) and two.dominates(one))
    assert one.dominates(three) or not (one.dominates(two) and two.dominates(three))


def test_neither_of_two_compartments_dominates_the_other() -> None:
    one, other = AccessClass(Level.TA, 1), AccessClass(Level.TA, 2)
    assert not one.dominates(other)
    assert not other.dominates(one)
    assert AccessClass(Level.TA, 3).dominates(one)
    assert not AccessClass(Level.VTPM, 2).dominates(one)
