"""Every classical rule: a state in which it says yes, and for each of its clauses one in which it says no."""

from __future__ import annotations

import pytest

from fakes.policy_cases import CLASSES, Case, asked, changed, each_no, facts
from korora.policy.machine.omega.classical import CLASSICAL
from korora.policy.machine.omega.reasons import protected_by
from korora.policy.machine.running.machine import Answer, Machine
from korora.policy.machine.running.state import State

PAIR = "subject_class(u) = mid; object_class(o) = mid"
OWNED = "parent(k, o); access(u, k, w)"
ITEM = f"{OWNED}; live(o); udi(o)"
CASES = [
    Case(
        "get-read",
        asked("get-read", x="r"),
        f"matrix(u, o, r); {PAIR}",
        "+access(u, o, r)",
        {"discretionary": "-matrix(u, o, r); matrix(u, o, w)", "no-read-down": "object_class(o) = low"},
    ),
    Case(
        "get-write",
        asked("get-write", x="w"),
        f"matrix(u, o, w); {PAIR}",
        "+access(u, o, w)",
        {
            "discretionary": "-matrix(u, o, w); matrix(u, o, r); matrix(u, o, a)",
            "no-read-down": "object_class(o) = low",
            "no-write-up": "object_class(o) = high",
        },
    ),
    Case(
        "get-append",
        asked("get-append", x="a"),
        f"matrix(u, o, a); {PAIR}",
        "+access(u, o, a)",
        {"discretionary": "-matrix(u, o, a); matrix(u, o, w)", "no-write-up": "object_class(o) = aside"},
    ),
    Case(
        "get-execute",
        asked("get-execute", x="e"),
        "matrix(u, o, e); subject_class(u) = high; object_class(o) = low",
        "+access(u, o, e)",
        {"discretionary": "-matrix(u, o, e); matrix(v, o, e)"},
    ),
    Case(
        "release-access",
        asked("release-access", x="w"),
        "access(u, o, w); access(s, o, w)",
        "-access(u, o, w)",
        {"held": "-access(u, o, w); access(u, o, a)"},
    ),
    Case(
        "write",
        asked("write"),
        "access(u, o, a); udi(o); holds(o) = old",
        "holds(o) = v",
        {"alters": "-access(u, o, a); access(u, o, r)", "unconstrained": "-udi(o); cdi(o)"},
    ),
    Case(
        "give",
        asked("give", x="e"),
        OWNED,
        "+matrix(s, o, e)",
        {"owner": "-access(u, k, w); access(u, k, r); access(u, o, w)"},
    ),
    Case(
        "rescind",
        asked("rescind", x="w"),
        f"{OWNED}; matrix(s, o, w); access(s, o, w); matrix(s, o, r)",
        "-matrix(s, o, w); -access(s, o, w)",
        {"owner": "-parent(k, o)"},
    ),
    Case(
        "create",
        asked("create"),
        "access(u, k, a); object_class(k) = mid",
        "+live(o); +udi(o); +parent(k, o); object_class(o) = mid; +matrix(u, o, r); +matrix(u, o, w)",
        {
            "fresh": "live(o)",
            "owner": "-access(u, k, a); access(u, k, r)",
            "compatible": "object_class(k) = low",
        },
    ),
    Case(
        "delete",
        asked("delete"),
        f"{ITEM}; matrix(u, o, r); matrix(u, o, w); access(u, o, w); matrix(s, k, r)",
        "-live(o); -udi(o); -parent(k, o); -matrix(u, o, r); -matrix(u, o, w); -access(u, o, w)",
        {
            "owner": "-access(u, k, w)",
            "unconstrained": "-udi(o); cdi(o)",
            "leaf": "parent(o, j)",
            "of-no-migration": "belongs(o, m)",
            "no-credential": "credential(s, o)",
            "rescinded": "matrix(s, o, e)",
        },
    ),
    Case(
        "change-object-class",
        asked("change-object-class"),
        f"{ITEM}; object_class(k) = mid; object_class(o) = low",
        "object_class(o) = mid",
        {
            "owner": "-access(u, k, w)",
            "unconstrained": "-udi(o)",
            "closed": "access(s, o, e)",
            "leaf": "parent(o, j)",
            "compatible": "object_class(k) = low",
        },
    ),
    Case(
        "change-subject-class",
        asked("change-subject-class"),
        "credential(s, o); access(u, o, a); subject_class(u) = high; subject_class(s) = low",
        "subject_class(s) = mid",
        {
            "registrar": "-credential(s, o); credential(u, o)",
            "no-escalation": "subject_class(u) = low",
            "signed-out": "authenticated(s)",
            "closed": "access(s, j, e)",
        },
    ),
    Case(
        "authenticate",
        asked("authenticate"),
        "credential(s, o); valid(o); access(u, o, r)",
        "+authenticated(s)",
        {
            "credential": "-credential(s, o); credential(u, o)",
            "valid": "-valid(o)",
            "observes": "-access(u, o, r); access(u, o, a)",
        },
    ),
    Case(
        "sign-out",
        asked("sign-out"),
        "authenticated(s); authenticated(u); credential(s, o); access(u, o, w)",
        "-authenticated(s)",
        {"who": "-access(u, o, w)"},
    ),
    Case(
        "constrain",
        asked("constrain", t="submit"),
        "certifier(submit, u); udi(o)",
        "-udi(o); +cdi(o); +certified(submit, o)",
        {
            "certifier": "-certifier(submit, u); certifier(attest, u)",
            "unconstrained": "-udi(o)",
            "closed": "access(s, o, e)",
        },
    ),
    Case(
        "certify",
        asked("certify", t="submit"),
        "certifier(submit, u); cdi(o)",
        "+certified(submit, o)",
        {"certifier": "-certifier(submit, u); certifier(submit, s)", "constrained": "-cdi(o); udi(o)"},
    ),
    Case(
        "certify-upgrade",
        asked("certify-upgrade", t="submit"),
        "certifier(submit, u); certified(submit, o)",
        "+upgrades(submit, o)",
        {
            "certifier": "-certifier(submit, u)",
            "certified": "-certified(submit, o); certified(attest, o)",
        },
    ),
    Case(
        "decertify",
        asked("decertify", t="submit"),
        "certifier(submit, u); certified(submit, o); upgrades(submit, o); triple(s, attest, o)",
        "-certified(submit, o); -upgrades(submit, o)",
        {"certifier": "-certifier(submit, u)", "forbidden": "triple(s, submit, o)"},
    ),
    Case(
        "permit",
        asked("permit", t="submit"),
        "certifier(submit, u); certified(submit, o)",
        "+triple(s, submit, o)",
        {
            "certifier": "-certifier(submit, u)",
            "certified": "-certified(submit, o)",
            "separation": "certifier(submit, s)",
        },
    ),
    Case(
        "forbid",
        asked("forbid", t="submit"),
        "certifier(submit, u); triple(s, submit, o)",
        "-triple(s, submit, o)",
        {"certifier": "-certifier(submit, u)"},
    ),
    Case(
        "demand-approval",
        asked("demand-approval"),
        "executes(authorize, u)",
        "+two_persons(m)",
        {"provider": "-executes(authorize, u); executes(submit, u)", "not-agreed": "done(m, agree)"},
    ),
]


def named(case: Case) -> str:
    return case.rule


def case_of(rule: str) -> Case:
    (case,) = [case for case in CASES if case.rule == rule]
    return case


def test_every_clause_of_every_classical_rule_has_a_case() -> None:
    clauses = {one.name: [clause.label for clause in one.guard] for one in CLASSICAL}
    assert {case.rule: list(case.noes) for case in CASES} == clauses


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_rule_says_yes_and_does_what_it_says_and_nothing_else(case: Case) -> None:
    decision, after = case.yes()
    assert (decision.answer, decision.rule) == (Answer.YES, case.rule)
    assert after == changed(facts(case.state), case.effect)


@pytest.mark.parametrize(
    ("case", "clause"), [pytest.param(*each, id=f"{each[0].rule}-{each[1]}") for each in each_no(CASES)]
)
def test_without_what_a_clause_asks_for_the_answer_is_no_for_that_reason(case: Case, clause: str) -> None:
    decision, after, before = case.no(clause)
    assert (decision.answer, decision.rule, decision.clause) == (Answer.NO, case.rule, clause)
    assert decision.protects == protected_by(case.rule, clause)
    assert after == before


def test_who_owns_the_parent_may_append_to_it_alone() -> None:
    case = case_of("give")
    state = State(facts("parent(k, o); access(u, k, a)"))
    assert Machine(CLASSICAL, state).decide("give", case.given).allowed


def test_a_right_is_taken_back_that_nobody_has() -> None:
    state = State(facts(OWNED))
    assert Machine(CLASSICAL, state).decide("rescind", asked("rescind", x="w")).allowed
    assert state.facts() == facts(OWNED)


def test_everybody_signs_out_himself() -> None:
    state = State(facts("authenticated(s)"))
    assert Machine(CLASSICAL, state).decide("sign-out", {"u": "s", "s": "s"}).allowed
    assert state.facts() == frozenset()


def test_of_two_compartments_neither_is_opened_by_the_other() -> None:
    state = facts("matrix(u, o, r); matrix(u, o, w); matrix(u, o, a); matrix(u, o, e)")
    state = changed(state, "subject_class(u) = aside; object_class(o) = mid")
    machine = Machine(CLASSICAL, State(state))
    answers = {x: machine.decide("get", asked("get-read", x=x)) for x in "rwae"}
    assert {x: answer.clause for x, answer in answers.items()} == {
        "r": "no-read-down",
        "w": "no-read-down",
        "a": "",
        "e": "",
    }


def test_an_object_is_created_no_higher_than_its_parent() -> None:
    for name, answer in (("low", Answer.YES), ("mid", Answer.YES), ("aside", Answer.NO), ("high", Answer.NO)):
        state = State(facts("access(u, k, w); object_class(k) = mid"))
        given = asked("create", c=CLASSES[name])
        assert Machine(CLASSICAL, state).decide("create", given).answer is answer
