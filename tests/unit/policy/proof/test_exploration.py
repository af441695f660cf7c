"""Every state that small installations reach is secure; looking catches what the prover catches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from fakes.policy_cases import CLASSES, changed, facts
from korora.policy.machine.language import rule_file
from korora.policy.machine.language.rule import Rule
from korora.policy.machine.language.vocabulary import Procedure, Sort
from korora.policy.machine.omega.classical import CLASSICAL
from korora.policy.machine.omega.procedures import PREREQUISITES, UPGRADES
from korora.policy.machine.omega.rules import RULES
from korora.policy.machine.running.state import Facts, State
from korora.policy.proof.counterexample import insecure
from korora.policy.proof.exploration import Explored, explore

BROKEN = Path(__file__).parent / "broken"


def names(**given: str | Sequence[int]) -> Mapping[Sort, Sequence[Any]]:
    """One name of each sort, but for what is given."""
    plain: dict[str, Any] = {
        "value": "v",
        "migration": "m",
        "access": "w",
        "procedure": "submit",
        "entry": [1],
    }
    plain |= {"class": "low"} | given
    told = {sort: plain[sort].split() if isinstance(plain[sort], str) else plain[sort] for sort in Sort}
    return {**told, Sort.CLASS: [CLASSES[name] for name in told[Sort.CLASS]]}


def explored(rules: Iterable[Rule], first: Facts, of: Mapping[Sort, Sequence[Any]], most: int) -> Explored:
    assert list(insecure(State(first))) == []
    return explore(tuple(rules), first, of, most=most)


def lost(found: Explored) -> set[str]:
    return {name for _, _, name in found.violations}


ROOT: Final = """
    live(root); cdi(root); valid(root); holds(root) = v; object_class(root) = high; matrix(u, root, w);
    subject_class(u) = high; subject_class(s) = low; credential(s, root)
"""
ITEM: Final = "access(u, root, w); parent(root, o); live(o); udi(o); object_class(o) = low; holds(o) = v"


def test_every_state_that_two_subjects_and_an_object_can_reach_is_secure() -> None:
    of = names(subject="u s", object="root o", access="r w", **{"class": "low high"})
    found = explored(CLASSICAL, facts(ROOT), of, 3000)
    assert (found.complete, found.violations) == (True, [])
    assert found.states > 1000
    assert found.steps > 10_000


def test_every_state_of_an_item_that_is_certified_and_permitted_is_secure() -> None:
    of = names(subject="u s", object="o", access="a r", **{"class": "low high"})
    found = explored(CLASSICAL, facts(f"{ROOT}; certifier(submit, u); {ITEM}"), of, 3000)
    assert (found.complete, found.violations) == (True, [])
    assert found.states > 500


MIGRATION: Final = """
    subject_class(alice) = low; subject_class(bob) = low; subject_class(h) = high;
    authenticated(alice); authenticated(bob); two_persons(m); done(m, challenge); done(m, attest);
    live(form); udi(form); belongs(form, m); object_class(form) = low; holds(form) = v;
    live(record); cdi(record); belongs(record, m); object_class(record) = high; holds(record) = v;
    live(note); cdi(note); belongs(note, m); object_class(note) = high; holds(note) = v;
    matrix(h, record, w); access(h, record, w); matrix(h, note, w); access(h, note, w)
"""
MAY: Final = {
    ("submit", "record"): "alice",
    ("authorize", "record"): "alice",
    ("approve", "record"): "alice bob",
    ("agree", "record"): "alice",
    ("withdraw", "record"): "alice",
    ("confirm", "record"): "alice",
    ("flag", "note"): "alice",
    ("resolve", "note"): "alice bob",
}
"""Who is permitted what on which item; that it is permitted does not mean that the state allows it."""


def migration(more: str = "") -> Facts:
    parts = [MIGRATION]
    for (procedure, item), users in MAY.items():
        parts.append(f"executes({procedure}, h); certified({procedure}, {item})")
        parts += [f"triple({user}, {procedure}, {item})" for user in users.split()]
        if procedure in UPGRADES:
            parts.append(f"upgrades({procedure}, {item})")
    return changed(facts("; ".join(parts)), more)


STEPS: Final = [rule for rule in RULES if rule.name in {procedure for procedure, _ in MAY}]
SUBMITTED: Final = "done(m, submit); requester(m, alice); valid(record)"


@pytest.mark.parametrize("began", ["", SUBMITTED])
def test_every_state_that_three_steps_of_a_migration_can_reach_is_secure(began: str) -> None:
    of = names(subject="alice bob h", object="form record note", entry=[1, 2, 3])
    found = explored(STEPS, migration(began), of, 500)
    assert (found.complete, found.violations) == (True, [])
    assert found.states > 150


def test_what_has_not_been_seen_is_not_called_complete() -> None:
    found = explored(CLASSICAL, facts(ROOT), names(subject="u s", object="root o"), 20)
    assert (found.complete, found.states) == (False, 20)


def test_all_that_is_asked_is_counted() -> None:
    (give,) = [rule for rule in RULES if rule.name == "give"]
    first = facts("live(o); live(k); parent(k, o); matrix(u, k, w); access(u, k, w)")
    first = changed(first, "subject_class(u) = low; object_class(k) = low; object_class(o) = low")
    found = explored([give], first, names(subject="u s", object="o k"), 10)
    # whether u and s may open o: four states, each asked 2 × 2 × 2 × 1 things, two of which get a yes
    assert (found.states, found.decisions, found.steps, found.complete) == (4, 32, 8, True)


def ready(procedure: str, *but: str) -> str:
    """A secure state in which u may do it with h, from i to o, in m, but for what is left out."""
    done = {str(before) for before in _all_before(Procedure(procedure))}
    parts = [
        f"authenticated(u); triple(u, {procedure}, o); executes({procedure}, h); certified({procedure}, o)",
        "subject_class(u) = low; subject_class(s) = low; subject_class(h) = low",
        *(
            f"live({item}); belongs({item}, m); object_class({item}) = low; holds({item}) = v"
            for item in "io"
        ),
        "cdi(o); matrix(h, o, w); access(h, o, w)",
        "udi(i)" if procedure in UPGRADES else "cdi(i); valid(i); matrix(h, i, r); access(h, i, r)",
        f"upgrades({procedure}, o)" if procedure in UPGRADES else "",
        "requester(m, u)" if "submit" in done else "",
        *(f"done(m, {before})" for before in sorted(done)),
    ]
    told = [part.strip() for text in parts for part in text.split(";")]
    return "; ".join(part for part in told if part not in but)


def _all_before(procedure: Procedure) -> set[Procedure]:
    before = set(PREREQUISITES[procedure])
    return before.union(*map(_all_before, before))


LOST: Final = {
    # fixture: (the first state, the property that is lost)
    "append-above": (
        "live(o); matrix(u, o, a); subject_class(u) = low; object_class(o) = high",
        "no-write-up",
    ),
    "anybody-gives": ("live(o)", "rights-come-from-the-owner"),
    "class-in-mid-session": (
        "live(i); object_class(i) = high; matrix(u, i, w); access(u, i, w); subject_class(u) = high;"
        "live(o); object_class(o) = low; matrix(s, o, r); access(s, o, r); subject_class(s) = low;"
        "credential(s, i)",
        "simple-security",
    ),
    "approves-own-request": (ready("approve"), "requester-is-not-approver"),
    "certifier-executes": (
        "live(o); cdi(o); certified(submit, o); certifier(submit, u)",
        "certifier-executes-nothing",
    ),
    "entry-written-twice": (
        ready("transfer") + "; log(1, s, agree, i)",
        "log-is-append-only",
    ),
    "uncertified-upgrade": (
        ready("submit", "upgrades(submit, o)", "object_class(i) = low", "object_class(o) = low")
        + "; object_class(i) = mid; object_class(o) = aside; subject_class(h) = aside",
        "information-rises-by-upgrade-alone",
    ),
    "goes-on-under-suspicion": (
        ready("release") + "; live(j); cdi(j); belongs(j, m); flagged(m, j); flagger(m, s)",
        "suspicion-stops-everything",
    ),
    "runs-before-release": (ready("run", "done(m, release)"), "order"),
    "edits-the-past": ("authenticated(u); log(1, u, submit, o); recorded(1, v)", "log-is-append-only"),
}


def edited(name: str) -> tuple[list[Rule], list[Rule]]:
    """The rules of a fixture that are not in force, and those in their place that are."""
    rules = rule_file.changed(RULES, (BROKEN / f"{name}.toml").read_text())
    broken = [rule for rule in rules if rule not in RULES]
    return broken, [rule for rule in RULES if rule.name in {one.name for one in broken}]


@pytest.mark.parametrize("name", sorted(LOST))
def test_a_broken_rule_set_is_caught_by_looking_too(name: str) -> None:
    text, wanted = LOST[name]
    of = names(subject="u s h", object="i o", access="a r", **{"class": "low high"})
    broken, sound = edited(name)
    assert wanted in lost(explored(broken, facts(text), of, 100))
    if sound:
        assert explored(sound, facts(text), of, 100).violations == []


def test_each_broken_rule_set_that_loses_a_property_is_looked_at() -> None:
    fine = {"never-usable", "two-rules-claim"}  # they decide too little, and do no harm
    assert {path.stem for path in BROKEN.glob("*.toml")} == set(LOST) | fine
    for name in fine:
        rules = rule_file.changed(RULES, (BROKEN / f"{name}.toml").read_text())
        requests = {rule.request for rule in rules if rule not in RULES}
        of = names(subject="u s", object="root o", access="r w")
        assert (
            lost(explored([rule for rule in rules if rule.request in requests], facts(ROOT), of, 100))
            == set()
        )


def test_every_violation_tells_what_was_asked_and_what_was_lost() -> None:
    broken, _ = edited("anybody-gives")
    found = explored(broken, facts("live(o)"), names(subject="u", object="o"), 1)
    assert found.violations == [
        ("give", {"u": "u", "s": "u", "o": "o", "x": "w"}, "rights-come-from-the-owner")
    ]
