"""Every procedure of a migration: a state in which it says yes, and for each clause one for a no."""

from __future__ import annotations

import pytest

from fakes.policy_cases import Case, asked, changed, each_no, facts
from korora.policy.machine.language.rule import Rule
from korora.policy.machine.language.vocabulary import Procedure
from korora.policy.machine.omega.procedures import PREREQUISITES, PROCEDURES, UPGRADES
from korora.policy.machine.omega.reasons import protected_by
from korora.policy.machine.running.machine import Answer

BEFORE = {
    "flag": "access(h, i, r); belongs(i, m); cdi(i); valid(i)",
    "resolve": "access(h, i, r); belongs(i, m); flagged(m, i); flagger(m, s)",
    "confirm": "access(h, o, r); holds(o) = v",
}
ALSO = {
    "submit": "requester(m, u)",
    "approve": "approver(m, u)",
    "flag": "-valid(i); flagged(m, i); flagger(m, u)",
    "resolve": "-flagged(m, i); valid(i)",
}


def state_for(name: str) -> str:
    common = f"authenticated(u); triple(u, {name}, o); executes({name}, h)"
    if name != "confirm":
        common += "; access(h, o, w); belongs(o, m); holds(o) = old"
    if name in BEFORE:
        return f"{common}; {BEFORE[name]}"
    procedure = Procedure(name)
    taken = f"udi(i); upgrades({name}, o)" if procedure in UPGRADES else "access(h, i, r); valid(i)"
    done = [f"done(m, {before})" for before in PREREQUISITES[procedure]]
    return "; ".join([common, "belongs(i, m)", taken, *done])


def effect_of(name: str) -> str:
    made = f"valid(o); log(1, u, {name}, o); recorded(1, v)"
    parts = [made] if name == "confirm" else [made, "holds(o) = v"]
    if name not in BEFORE:
        parts.append(f"flow(i, o); done(m, {name})")
    return "; ".join([*parts, *filter(None, [ALSO.get(name)])])


def against(name: str) -> dict[str, str]:
    """What makes each clause fail, and no other before it."""
    return {
        "authenticated": "-authenticated(u)",
        "triple": f"-triple(u, {name}, o); triple(s, {name}, o); triple(u, {name}, i)",
        "executes": f"-executes({name}, h); executes({name}, u)",
        "output": "-access(h, o, w); access(h, o, r); access(u, o, w)",
        "output-belongs": "-belongs(o, m); belongs(o, other)",
        "entry-fresh": "log(1, s, flag, j)",
        "input": "-access(h, i, r); access(h, i, a); access(u, i, r)",
        "input-belongs": "-belongs(i, m); belongs(i, other)",
        "input-valid": "-valid(i)",
        "input-unconstrained": "-udi(i); cdi(i)",
        "upgrades": f"-upgrades({name}, o); upgrades({name}, i)",
        "once": f"done(m, {name})",
        "not-withdrawn": "done(m, withdraw)",
        "not-released": "done(m, release)",
        "not-reclaimed": "done(m, reclaim)",
        "not-run": "done(m, run)",
        "not-flagged": "flagged(m, o)" if name == "confirm" else "flagged(m, j)",
        "output-unflagged": "flagged(m, o)",
        "another-person": "flagger(m, u)" if name == "resolve" else "requester(m, u)",
        "approved": "two_persons(m)",
        "constrained": "-cdi(i)",
        "apart": "i := o; cdi(o)",
        "flagged": "-flagged(m, i)",
        "observes": "-access(h, o, r)",
        "unchanged": "holds(o) = other",
        **{f"after-{before}": f"-done(m, {before})" for before in Procedure if before != name},
    }


def case_for(rule: Rule) -> Case:
    noes = {clause.label: against(rule.name)[clause.label] for clause in rule.guard}
    return Case(rule.name, asked(rule.name), state_for(rule.name), effect_of(rule.name), noes)


CASES = [case_for(rule) for rule in PROCEDURES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_a_procedure_says_yes_and_does_what_it_says_and_nothing_else(case: Case) -> None:
    decision, after = case.yes()
    assert (decision.answer, decision.rule) == (Answer.YES, case.rule)
    assert after == changed(facts(case.state), case.effect)


@pytest.mark.parametrize(
    ("case", "clause"), [pytest.param(*each, id=f"{each[0].rule}-{each[1]}") for each in each_no(CASES)]
)
def test_without_what_a_clause_asks_for_the_answer_is_no_for_that_reason(case: Case, clause: str) -> None:
    decision, after, before = case.no(clause)
    assert (decision.answer, decision.rule, decision.clause) == (Answer.NO, case.rule, clause)
    assert decision.protects == protected_by(case.rule, clause) != ""
    assert after == before


def test_there_is_a_rule_for_every_procedure() -> None:
    assert [rule.name for rule in PROCEDURES] == [*PREREQUISITES, *BEFORE]
    assert {rule.name for rule in PROCEDURES} == set(Procedure)


def test_what_rests_on_a_release_does_not_ask_whether_the_migration_was_withdrawn() -> None:
    asks = {rule.name for rule in PROCEDURES if any(c.label == "not-withdrawn" for c in rule.guard)}
    assert set(PREREQUISITES) - asks == {"run", "wipe", "receipt", "reclaim", "withdraw"}


def test_with_an_approver_two_persons_have_agreed() -> None:
    (case,) = [case for case in CASES if case.rule == "agree"]
    approved = Case("agree", case.given, f"{case.state}; two_persons(m); approver(m, s)", "")
    assert approved.yes()[0].allowed
