"""The site's policy on real hosts: a second person, a broken edit, and the story of what was decided."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from end_to_end.conftest import Lab
from end_to_end.travelling import HOSTS, Traveller
from korora.lab.site import APPROVER, authorization, configuration_through

pytestmark = pytest.mark.end_to_end
REFUSED, QUESTION = 3, 4


@contextmanager
def policy(lab: Lab, change: tuple[str, str]) -> Iterator[Path]:
    """The policy of all hosts, changed, and seen by them; and back again."""
    file = authorization(lab.layout).parent / "policies" / "lab.cedar"
    before = file.read_text()
    assert change[0] in before
    file.write_text(before.replace(*change))
    try:
        yield file
    finally:
        file.write_text(before)
        for host in lab.layout.hosts(HOSTS):
            lab.answer("host", "show", host.name)


def told(lab: Lab, *words: str, config: Path | None = None) -> tuple[int, dict[str, object]]:
    done = lab.korora(*words, "--json", config=config)
    return done.returncode, json.loads(done.stdout.strip().splitlines()[-1])


def test_a_second_person_agrees_and_both_logs_tell_it(walker: Traveller, lab: Lab) -> None:
    there = walker.other()
    bob = configuration_through(lab.layout, lab.layout.hosts(HOSTS), {}, "bob", operator=APPROVER)
    with policy(lab, ('@id("alice migrates")', '@id("alice migrates") @two_persons("yes")')):
        refused = walker.move(there)
        assert (refused.exit_code, refused.error["kind"]) == (QUESTION, "needs-approval")
        assert refused.error["vm_runs_on"] == walker.host.name
        (waiting,) = lab.answer("question", "list")
        question = waiting["question"]["id"]
        assert question in refused.error["remedy"]
        code, _ = told(lab, "question", "answer", question, "yes")  # alice, who asked
        assert code == REFUSED
        code, taken = told(lab, "question", "answer", question, "yes", "--reason", "seen", config=bob)
        assert (code, taken["taken_by"]) == (0, sorted([walker.host.name, there.name]))
        outcome = walker.moved(there)
        decisions = lab.answer("policy", "explain", outcome["session"][:16])["decisions"]
        agreed = [(one["host"], one["user"]) for one in decisions if one["procedure"] == "approve"]
        assert agreed == [("a", "approver bob"), ("b", "approver bob")]
        assert lab.answer("question", "list") == []
        assert lab.korora("log", "verify").returncode == 0


def test_a_broken_edit_leaves_the_policy_in_force_and_the_site_is_told(walker: Traveller, lab: Lab) -> None:
    there = walker.other()
    with policy(lab, ("permit (principal ==", "permit (principle ==")) as file:
        code, checked = told(lab, "policy", "check")
        assert code == 2
        assert str(file) in json.dumps(checked["problems"])
        assert str(file) in json.dumps(lab.answer("host", "show", walker.host.name))
        walker.moved(there)
    assert lab.answer("policy", "check")["usable"]
    assert lab.answer("policy", "test")["as_expected"]
