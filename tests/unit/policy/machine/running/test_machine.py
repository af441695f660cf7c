"""Every request gets one answer and its reason, and the state changes with a yes alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from korora.policy.machine.language.rule import rule
from korora.policy.machine.language.vocabulary import Access, Procedure, Sort
from korora.policy.machine.omega.properties import CONSTRAINTS, INVARIANTS
from korora.policy.machine.omega.reasons import protected_by
from korora.policy.machine.omega.rules import RULES
from korora.policy.machine.running.classes import AccessClass, Level
from korora.policy.machine.running.machine import MAX_NAME, Answer, Decision, Machine
from korora.policy.machine.running.state import SHARDS, Facts, State

LOW, HIGH = AccessClass(Level.UA), AccessClass(Level.TA)
FACTS: Facts = frozenset(
    {
        ("subject_class", ("alice", LOW)),
        ("object_class", ("form", LOW)),
        ("live", ("form",)),
        ("udi", ("form",)),
        ("matrix", ("alice", "form", "r")),
        ("matrix", ("alice", "form", "w")),
    }
)
GET: dict[str, Any] = {"u": "alice", "o": "form", "x": "w"}
SUBMIT: dict[str, Any] = {"u": "u", "h": "h", "m": "m", "i": "i", "o": "o", "v": "v", "n": 1}
CREATE: dict[str, Any] = {"u": "alice", "o": "new", "k": "form", "c": LOW}


def machine(facts: Facts = FACTS) -> Machine:
    return Machine(RULES, State(facts))


ASKED_OFTEN = machine()
"""Nothing that is asked of it here changes it."""


def unchanged(running: Machine, request: str, arguments: dict[str, Any]) -> Decision:
    before = running.state.facts()
    decision = running.decide(request, arguments)
    assert decision.answer is not Answer.YES
    assert not decision.allowed
    assert running.state.facts() == before
    return decision


def test_yes_names_the_rule_and_its_effect_happens() -> None:
    running = machine()
    decision = running.decide("get", GET)
    assert decision == Decision(Answer.YES, "get", GET, "get-write")
    assert decision.allowed
    assert decision.protects == ""
    assert running.state.facts() == FACTS | {("access", ("alice", "form", "w"))}


def test_a_large_state_is_decided_like_a_small_one() -> None:
    running = Machine(RULES, State(FACTS, shards=SHARDS))
    assert running.decide("get", GET).allowed
    assert running.state.facts() == FACTS | {("access", ("alice", "form", "w"))}


def test_no_names_the_rule_the_clause_and_what_it_protects() -> None:
    decision = unchanged(machine(), "get", GET | {"u": "bob"})
    assert decision == Decision(Answer.NO, "get", GET | {"u": "bob"}, "get-write", "discretionary")
    assert decision.protects == "discretionary"


def test_the_first_clause_that_does_not_hold_is_the_reason() -> None:
    facts = FACTS - {("matrix", ("alice", "form", "w")), ("object_class", ("form", LOW))}
    assert unchanged(machine(facts), "get", GET).clause == "discretionary"
    assert (
        unchanged(machine(facts | {("matrix", ("alice", "form", "w"))}), "get", GET).clause == "no-read-down"
    )


def test_a_request_that_no_rule_covers_is_a_question() -> None:
    assert unchanged(machine(), "teleport", GET).answer is Answer.QUESTION
    assert unchanged(machine(), "", {}).answer is Answer.QUESTION
    assert unchanged(machine(), "get-write", GET).answer is Answer.QUESTION


def test_a_request_outside_every_domain_is_a_question() -> None:
    without = [one for one in RULES if one.name != "get-write"]
    running = Machine(without, State(FACTS))
    assert unchanged(running, "get", GET) == Decision(Answer.QUESTION, "get", GET)
    assert running.decide("get", GET | {"x": "r"}).allowed


def test_a_request_that_two_rules_claim_is_an_error_that_names_them() -> None:
    twice = rule("again", RULES[0].parameters, {}, ["+access(u, o, x)"], request="get", domain="x = w")
    decision = unchanged(Machine([*RULES, twice], State(FACTS)), "get", GET)
    assert decision == Decision(Answer.ERROR, "get", GET, problem="rules get-write and again both claim it")


@pytest.mark.parametrize(
    ("request_name", "arguments", "problem"),
    [
        ("get", {}, "it needs u, o, x, and was given nothing"),
        ("get", {"u": "alice", "o": "form"}, "it needs u, o, x, and was given o, u"),
        ("get", GET | {"y": "w"}, "it needs u, o, x, and was given o, u, x, y"),
        ("get", {"U": "alice", "o": "form", "x": "w"}, "it needs u, o, x"),
        ("get", GET | {"x": "x"}, "x is no access"),
        ("get", GET | {"x": "W"}, "x is no access"),
        ("get", GET | {"x": ""}, "x is no access"),
        ("get", GET | {"x": "submit"}, "x is no access"),
        ("get", GET | {"x": 1}, "x is no access"),
        ("get", GET | {"x": None}, "x is no access"),
        ("get", GET | {"x": ["w"]}, "x is no access"),
        ("get", GET | {"u": ""}, "u is no subject"),
        ("get", GET | {"u": "a" * (MAX_NAME + 1)}, "u is no subject"),
        ("get", GET | {"u": b"alice"}, "u is no subject"),
        ("get", GET | {"u": 1}, "u is no subject"),
        ("get", GET | {"u": None}, "u is no subject"),
        ("get", GET | {"u": ("alice",)}, "u is no subject"),
        ("get", GET | {"u": ["alice"]}, "u is no subject"),
        ("get", GET | {"o": {}}, "o is no object"),
        ("get", GET | {"o": LOW}, "o is no object"),
        ("submit", SUBMIT | {"n": True}, "n is no entry"),
        ("submit", SUBMIT | {"n": False}, "n is no entry"),
        ("submit", SUBMIT | {"n": -1}, "n is no entry"),
        ("submit", SUBMIT | {"n": 1.0}, "n is no entry"),
        ("submit", SUBMIT | {"n": "1"}, "n is no entry"),
        ("submit", SUBMIT | {"m": ""}, "m is no migration"),
        ("submit", SUBMIT | {"v": ""}, "v is no value"),
        ("submit", SUBMIT | {"v": b"v"}, "v is no value"),
        ("certify", {"u": "u", "t": "r", "o": "o"}, "t is no procedure"),
        ("certify", {"u": "u", "t": "Submit", "o": "o"}, "t is no procedure"),
        ("certify", {"u": "u", "t": 0, "o": "o"}, "t is no procedure"),
        ("create", CREATE | {"c": (0, 0)}, "c is no class"),
        ("create", CREATE | {"c": Level.UA}, "c is no class"),
        ("create", CREATE | {"c": "UA"}, "c is no class"),
        ("create", CREATE | {"c": None}, "c is no class"),
    ],
)
def test_a_malformed_request_is_an_error_that_names_what_is_wrong(
    request_name: str, arguments: dict[str, Any], problem: str
) -> None:
    decision = unchanged(machine(), request_name, arguments)
    assert decision.answer is Answer.ERROR
    assert (decision.request, decision.arguments) == (request_name, arguments)
    assert decision.problem.startswith(problem)
    assert (decision.rule, decision.clause, decision.protects) == ("", "", "")


def test_a_name_may_have_256_characters_and_any_of_them() -> None:
    for name in ("a" * MAX_NAME, "\x00", "é\n", "\ud800", "'; drop", "r"):
        facts: Facts = frozenset({("matrix", (name, name, "e"))})
        assert machine(facts).decide("get", {"u": name, "o": name, "x": "e"}).allowed


def test_an_entry_is_any_whole_number_that_is_not_negative() -> None:
    for number in (0, 1, 2**80):
        assert unchanged(machine(), "submit", SUBMIT | {"n": number}).answer is Answer.NO


def test_accesses_and_procedures_are_taken_as_words_or_as_their_kind() -> None:
    assert machine().decide("get", GET | {"x": Access.WRITE}).allowed
    facts: Facts = frozenset({("certifier", ("submit", "c")), ("cdi", ("o",))})
    for procedure in ("submit", Procedure.SUBMIT):
        assert machine(facts).decide("certify", {"u": "c", "t": procedure, "o": "o"}).allowed


_NOISE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.tuples(inner) | st.dictionaries(st.text(max_size=1), inner)
    ),
    max_leaves=3,
)
_PARAMETERS = sorted({name for one in RULES for name in one.parameters})


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([one.request for one in RULES]) | st.text(max_size=5),
    st.dictionaries(st.sampled_from(_PARAMETERS) | st.text(max_size=1), _NOISE, max_size=8),
)
def test_noise_gets_an_answer_that_is_not_yes(request_name: str, arguments: dict[str, Any]) -> None:
    unchanged(ASKED_OFTEN, request_name, arguments)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_right_names_with_wrong_values_are_an_error_or_a_no(data: st.DataObject) -> None:
    one = data.draw(st.sampled_from([one for one in RULES if one.name != "sign-out"]))  # everybody may
    arguments = {name: data.draw(_NOISE | st.sampled_from(["r", "submit", 1])) for name in one.parameters}
    assert unchanged(ASKED_OFTEN, one.request, arguments).answer in {Answer.ERROR, Answer.NO}


def test_rules_of_one_request_must_take_the_same_parameters() -> None:
    other = rule("other", {"u": Sort.SUBJECT}, {}, [], request="get")
    with pytest.raises(ValueError, match="get-read and other take different parameters"):
        Machine([*RULES, other], State())


def test_what_is_taken_away_goes_first_then_what_is_added() -> None:
    parameters = {"u": Sort.SUBJECT, "o": Sort.OBJECT, "k": Sort.OBJECT}
    moved = rule("move", parameters, {}, ["+parent(k, o)", "-parent(_, o)"])
    running = Machine([moved], State(frozenset({("parent", ("a", "o")), ("parent", ("a", "p"))})))
    assert running.decide("move", {"u": "u", "o": "o", "k": "b"}).allowed
    assert running.state.facts() == {("parent", ("b", "o")), ("parent", ("a", "p"))}


def test_effects_are_made_of_terms_as_they_were_before() -> None:
    parameters = {"u": Sort.SUBJECT, "o": Sort.OBJECT, "k": Sort.OBJECT}
    swap = rule("swap", parameters, {}, ["holds(o) := holds(k)", "holds(k) := holds(o)"])
    running = Machine([swap], State(frozenset({("holds", ("a", "1")), ("holds", ("b", "2"))})))
    assert running.decide("swap", {"u": "u", "o": "a", "k": "b"}).allowed
    assert running.state.facts() == {("holds", ("a", "2")), ("holds", ("b", "1"))}


def test_every_clause_but_the_explained_one_protects_a_property_that_there_is() -> None:
    names = {one.name for one in (*INVARIANTS, *CONSTRAINTS)}
    for one in RULES:
        for clause in one.guard:
            served = protected_by(one.name, clause.label)
            assert served in names or (one.name, clause.label) == ("release-access", "held")


def test_a_clause_of_a_rule_of_ones_own_protects_nothing_that_is_known() -> None:
    mine = rule("mine", {"u": Sort.SUBJECT}, {"my-own": "authenticated(u)"}, [])
    decision = Machine([mine], State()).decide("mine", {"u": "u"})
    assert (decision.answer, decision.clause, decision.protects) == (Answer.NO, "my-own", "")


def test_rules_of_one_request_may_name_their_parameters_in_any_order() -> None:
    turned = {"x": Sort.ACCESS, "o": Sort.OBJECT, "u": Sort.SUBJECT}
    write = rule(
        "get-write", turned, {"may": "matrix(u, o, x)"}, ["+access(u, o, x)"], request="get", domain="x = w"
    )
    rules = [write if one.name == "get-write" else one for one in RULES]
    running = Machine(rules, State(FACTS))
    assert running.decide("get", GET).allowed
    assert running.state.facts() == FACTS | {("access", ("alice", "form", "w"))}
    assert running.decide("get", GET | {"x": "r"}).allowed


def test_arguments_that_are_not_even_named_by_words_are_an_error() -> None:
    arguments: dict[Any, Any] = GET | {1: "w", None: "w", ("u",): "w"}
    assert unchanged(ASKED_OFTEN, "get", arguments).answer is Answer.ERROR


@pytest.mark.parametrize(
    "strange",
    [
        AccessClass(5),  # type: ignore[arg-type]
        AccessClass("UA"),  # type: ignore[arg-type]
        AccessClass(None),  # type: ignore[arg-type]
        AccessClass(False),  # type: ignore[arg-type]
        AccessClass(Level.UA, -1),
        AccessClass(Level.UA, True),
        AccessClass(Level.UA, 0.5),  # type: ignore[arg-type]
        AccessClass(Level.UA, "1"),  # type: ignore[arg-type]
        AccessClass(Level.UA, []),  # type: ignore[arg-type]
    ],
)
def test_a_class_of_no_level_or_with_strange_categories_is_an_error(strange: AccessClass) -> None:
    facts = FACTS | {("access", ("alice", "form", "w"))}
    decision = unchanged(machine(facts), "create", CREATE | {"c": strange})
    assert (decision.answer, decision.problem) == (Answer.ERROR, "c is no class")
    assert machine(facts).decide("create", CREATE).allowed
