"""The rules in force keep every state secure; one that does not is caught, with a case that happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from korora.policy.machine.language.rule import Rule
from korora.policy.machine.language.rule_file import changed
from korora.policy.machine.omega.properties import CONSTRAINTS, INVARIANTS, Property
from korora.policy.machine.omega.rules import RULES
from korora.policy.proof.audit import audit
from korora.policy.proof.counterexample import find
from korora.policy.proof.obligations import DETERMINISM, USABLE, of_rule, overlap, prove

BROKEN = Path(__file__).parent / "broken"
PROPERTIES = {one.name: one for one in (*INVARIANTS, *CONSTRAINTS)}
LOST = {
    # fixture: (rule, property, what its case must show)
    "append-above": ("get-append", "no-write-up", "access(u, o, a)"),
    "anybody-gives": ("give", "rights-come-from-the-owner", "matrix"),
    "class-in-mid-session": ("change-subject-class", "simple-security", "subject_class"),
    "approves-own-request": ("approve", "requester-is-not-approver", "approver(m, u)"),
    "certifier-executes": ("permit", "certifier-executes-nothing", "triple"),
    "entry-written-twice": ("transfer", "log-is-append-only", "log(1, u, transfer, o)"),
    "uncertified-upgrade": ("submit", "information-rises-by-upgrade-alone", "flow(i, o)"),
    "goes-on-under-suspicion": ("release", "suspicion-stops-everything", "done(m, release)"),
    "runs-before-release": ("run", "order", "done(m, run)"),
    "edits-the-past": ("tidy", "log-is-append-only", "log"),
}


def broken(name: str) -> tuple[Rule, ...]:
    return changed(RULES, (BROKEN / f"{name}.toml").read_text())


def edited(name: str) -> list[Rule]:
    return [rule for rule in broken(name) if rule not in RULES]


def lost_by(rule: Rule) -> set[str]:
    return {result.property for result in of_rule(rule) if not result.proved}


def test_every_rule_in_force_keeps_every_property() -> None:
    results = list(prove(RULES))
    assert [result for result in results if not result.proved] == []
    named = {(result.rule, result.property) for result in results}
    for rule in RULES:
        assert {(rule.name, name) for name in (*PROPERTIES, USABLE)} <= named
        assert (rule.request, DETERMINISM) in named
    assert ("initial-state", "every-invariant") in named


def test_every_clause_is_needed_for_the_property_it_is_said_to_serve() -> None:
    deletions = list(audit(RULES))
    assert len(deletions) == sum(len(rule.guard) for rule in RULES)
    assert [deletion for deletion in deletions if not deletion.sound] == []


@pytest.mark.parametrize("name", sorted(LOST))
def test_a_broken_rule_set_is_caught_by_a_case_that_the_running_machine_replays(name: str) -> None:
    rule_name, property_name, shown = LOST[name]
    (rule,) = edited(name)
    assert rule.name == rule_name
    assert property_name in lost_by(rule)
    case = find(rule, PROPERTIES[property_name])
    assert case is not None
    assert case.replayed
    told = [f"{fact}({', '.join(map(str, row))})" for fact, row in case.before ^ case.after]
    assert any(line.startswith(shown) for line in told), told


def test_two_rules_that_claim_one_request_are_caught() -> None:
    rules = {rule.name: rule for rule in broken("two-rules-claim")}
    assert not overlap(rules["get-read"], rules["get-read-quickly"]).decide().proved
    assert overlap(rules["get-read"], rules["get-write"]).decide().proved


def test_a_rule_that_nothing_can_satisfy_is_caught() -> None:
    (rule,) = edited("never-usable")
    assert lost_by(rule) == {USABLE}


def test_there_is_no_case_against_a_property_that_is_kept() -> None:
    (rule,) = [rule for rule in RULES if rule.name == "give"]
    wanted: Property = PROPERTIES["rights-come-from-the-owner"]
    assert find(rule, wanted) is None
