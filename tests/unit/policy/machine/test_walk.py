"""Whatever is asked, and in whatever order: yes keeps a secure state secure, all else changes nothing."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.policy_cases import CLASSES, facts
from korora.policy.machine.language.rule import Rule
from korora.policy.machine.language.rule_file import changed
from korora.policy.machine.language.vocabulary import Access, Procedure, Sort
from korora.policy.machine.omega.procedures import PREREQUISITES, UPGRADES
from korora.policy.machine.omega.properties import CONSTRAINTS, INVARIANTS
from korora.policy.machine.omega.rules import RULES
from korora.policy.machine.running.machine import Answer, Machine
from korora.policy.machine.running.reading import Reader
from korora.policy.machine.running.state import Facts, State
from korora.policy.proof.exploration import turn

REQUESTS_A_WALK: Final = 1500
WALKS: Final = 16
WORLD: Final = """
    subject_class(alice) = low; subject_class(bob) = low; subject_class(carol) = high;
    subject_class(h) = high;
    live(root); cdi(root); valid(root); object_class(root) = high; holds(root) = v1;
    matrix(carol, root, w); access(carol, root, w); credential(alice, root);
    credential(bob, root); authenticated(alice); authenticated(bob);
    live(form); udi(form); object_class(form) = low; holds(form) = v1; parent(root, form); belongs(form, m);
    live(record); cdi(record); object_class(record) = high; holds(record) = v1; parent(root, record);
    belongs(record, m); matrix(h, record, w); access(h, record, w);
    live(note); cdi(note); object_class(note) = high; holds(note) = v1; parent(root, note);
    belongs(note, m); matrix(h, note, w); access(h, note, w); two_persons(m)
"""
NAMES: Final[Mapping[Sort, list[Any]]] = {
    Sort.SUBJECT: ["alice", "bob", "carol", "h"],
    Sort.OBJECT: ["root", "form", "record", "note", "new"],
    Sort.CLASS: [CLASSES["low"], CLASSES["mid"], CLASSES["high"]],
    Sort.MIGRATION: ["m"],
    Sort.VALUE: ["v1", "v2"],
    Sort.ENTRY: [1, 2, 3],
    Sort.ACCESS: [access.value for access in Access],
    Sort.PROCEDURE: [procedure.value for procedure in Procedure],
}


SELDOM: Final = {"forbid", "decertify", "rescind", "sign-out", "flag"}
WEIGHTS: Final = [
    1 if rule.name in SELDOM else 4 if rule.name in {"release-access", "withdraw"} else 12 for rule in RULES
]
"""What ends something is asked seldom, or no migration comes to its end."""


def first() -> Facts:
    """A root above all; items of one migration; alice and bob run what carol certifies, in h."""
    parts = [WORLD]
    for procedure in Procedure:
        item = "note" if procedure in {Procedure.FLAG, Procedure.RESOLVE} else "record"
        parts.append(
            f"certifier({procedure}, carol); executes({procedure}, h); certified({procedure}, {item})"
        )
        parts.append(f"triple(alice, {procedure}, {item}); triple(bob, {procedure}, {item})")
        if procedure in UPGRADES:
            parts.append(f"upgrades({procedure}, {item})")
    return facts("; ".join(parts))


def chosen(chance: random.Random, state: State) -> Rule:
    """Any rule; now and then the step that is next, so that migrations come to their end."""
    done = {procedure for _, procedure in state.relations["done"]}
    ahead = [rule for rule in RULES if rule.name in PREREQUISITES and rule.name not in {*done, "withdraw"}]
    if ahead and chance.random() < 0.2:
        return ahead[0]
    return chance.choices(RULES, WEIGHTS)[0]


def asked(chance: random.Random, rule: Rule, state: State) -> dict[str, Any]:
    """By chance; for a procedure mostly what somebody is permitted, with the next entry of the log."""
    given = {name: chance.choice(NAMES[sort]) for name, sort in rule.parameters.items()}
    permitted = [row for row in state.relations["triple"] if row[1] == rule.name]
    if permitted and chance.random() < 0.9:
        given |= {"u": (row := chance.choice(sorted(permitted)))[0], "o": row[2], "h": "h"}
        given["n"] = len(state.relations["log"]) + 10
        given["i"] = "form" if rule.name in UPGRADES else "record"
    return {name: given[name] for name in rule.parameters}


class Watch:
    def __init__(self, before: State, after: State) -> None:
        self._state = [(one.name, Reader(after, {}), one.formula) for one in INVARIANTS]
        self._step = [
            (one.name, Reader(before, {"u": Sort.SUBJECT}, after), one.formula) for one in CONSTRAINTS
        ]
        self._tests = {name: reader.test(of) for name, reader, of in (*self._state, *self._step)}

    def lost(self, subject: str) -> list[str]:
        state = [name for name, reader, _ in self._state if not self._tests[name](reader.environment(()))]
        step = [
            name for name, reader, _ in self._step if not self._tests[name](reader.environment((subject,)))
        ]
        return state + step


def walk(
    chance: random.Random, shards: int, seen: Counter[tuple[str, Answer]], rules: Sequence[Rule] = RULES
) -> None:
    now = first()
    before, after = State(now), State(now, shards=shards)
    machine, watch = Machine(rules, after), Watch(before, after)
    assert watch.lost("alice") == []
    for _ in range(REQUESTS_A_WALK):
        rule = chosen(chance, after)
        given = asked(chance, rule, after)
        decision = machine.decide(rule.request, given)
        seen[decision.rule, decision.answer] += 1
        reached = after.facts()
        if decision.allowed:
            assert watch.lost(given["u"]) == [], (rule.request, given)
            turn(before, now, reached)
            now = reached
        assert reached == now, (rule.request, given)


def test_a_walk_stays_secure_whatever_is_asked() -> None:
    seen: Counter[tuple[str, Answer]] = Counter()

    @settings(max_examples=WALKS, deadline=None, derandomize=True)
    @given(st.integers(0, 2**32), st.sampled_from([1, 4]))
    def walks(seed: int, shards: int) -> None:
        walk(random.Random(seed), shards, seen)

    walks()
    for answer in (Answer.YES, Answer.NO):
        assert [rule.name for rule in RULES if not seen[rule.name, answer]] == [], answer


@pytest.mark.parametrize(
    ("clause", "first"),
    [("give.owner", 0), ("get-append.no-write-up", 3), ("permit.separation", 0), ("agree.approved", 54)],
)
def test_a_walk_of_rules_that_are_not_secure_does_not(clause: str, first: int) -> None:
    rules = changed(RULES, f"without = ['{clause}']")
    with pytest.raises(AssertionError):
        walks_of(rules, first)


def walks_of(rules: Sequence[Rule], first: int) -> None:
    """A hundred walks; `first` finds it now, and when it does not any more, the others are walked as well."""
    for number in range(100):
        seed = (first + number) % 100
        walk(random.Random(seed), 1, Counter(), rules)
