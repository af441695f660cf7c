"""Policies decide by name, label, group, time, window, mode and attested state; and only a permit permits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from korora.adapters.authorization.cedar import Policies, problems
from korora.errors import UsageError
from korora.model.authorization import Answer, Authorized, Denied, NeedsApproval, Uncovered
from korora.model.identity import HostName, OperatorName, VmName
from korora.policy.authorization import Facts

FACTS = Facts(
    operator=OperatorName("alice"),
    groups=("web-team",),
    action="migrate",
    vm=VmName("web-1"),
    vm_labels=("stateless",),
    source=HostName("north"),
    source_labels=("rack-1",),
    destination=HostName("south"),
    destination_labels=("rack-2",),
    mode="live",
    day="sat",
    minute=23 * 60,
    windows=("weekend",),
    peer_state="hardened",
)


def asked(text: str, facts: Facts = FACTS, *, asks: bool = False) -> Answer:
    return Policies({"site.cedar": text}).decide(facts, asks=asks)


PERMITS = {
    "operator": 'permit(principal == Operator::"alice", action, resource);',
    "group": 'permit(principal in Group::"web-team", action, resource);',
    "action": 'permit(principal, action == Action::"migrate", resource);',
    "vm": 'permit(principal, action, resource == Vm::"web-1");',
    "name of the VM": 'permit(principal, action, resource) when { resource.name like "web-*" };',
    "label of the VM": 'permit(principal, action, resource) when { resource.labels.contains("stateless") };',
    "source": 'permit(principal, action, resource) when { context.source == Host::"north" };',
    "destination": 'permit(principal, action, resource) when { context.destination.name like "so*" };',
    "rack": 'permit(principal, action, resource) when { context.destination.labels.contains("rack-2") };',
    "mode": 'permit(principal, action, resource) when { context.mode == "live" };',
    "day": 'permit(principal, action, resource) when { ["sat", "sun"].contains(context.day) };',
    "time": "permit(principal, action, resource) when { context.minute >= 1320 };",
    "window": 'permit(principal, action, resource) when { context.windows.contains("weekend") };',
    "state": "permit(principal, action, resource)"
    ' when { context has peer_state && context.peer_state == "hardened" };',
}
OTHERS = {
    "operator": replace(FACTS, operator=OperatorName("bob")),
    "group": replace(FACTS, groups=("database-team",)),
    "action": replace(FACTS, action="observe"),
    "vm": replace(FACTS, vm=VmName("web-2")),
    "name of the VM": replace(FACTS, vm=VmName("db-1")),
    "label of the VM": replace(FACTS, vm_labels=()),
    "source": replace(FACTS, source=HostName("east")),
    "destination": replace(FACTS, destination=HostName("east")),
    "rack": replace(FACTS, destination_labels=("rack-1",)),
    "mode": replace(FACTS, mode="offline"),
    "day": replace(FACTS, day="mon"),
    "time": replace(FACTS, minute=600),
    "window": replace(FACTS, windows=()),
    "state": replace(FACTS, peer_state=None),
}


@pytest.mark.parametrize("by", PERMITS)
def test_a_permit_permits_what_it_speaks_of_and_nothing_else(by: str) -> None:
    assert isinstance(asked(PERMITS[by]), Authorized)
    answer = asked(PERMITS[by], OTHERS[by])
    assert isinstance(answer, Denied)
    assert answer.kind == "not-allowed"


def test_a_forbid_overrules_every_permit_and_is_named() -> None:
    text = "permit(principal, action, resource);\n" * 3
    text += (
        '@id("frozen") forbid(principal, action, resource) when { resource.labels.contains("stateless") };'
    )
    answer = asked(text)
    assert isinstance(answer, Denied)
    assert (answer.kind, "frozen" in answer.reason) == ("forbidden", True)


def test_a_policy_without_a_name_is_named_by_its_place() -> None:
    assert asked("permit(principal, action, resource);") == Authorized("site.cedar, policy 1")
    several = (
        'forbid(principal, action, resource == Vm::"x");\n' * 12 + "permit(principal, action, resource);"
    )
    assert asked(several) == Authorized("site.cedar, policy 13")


def test_policies_of_several_files_are_named_by_theirs() -> None:
    never, always = 'permit(principal, action, resource == Vm::"x");', "permit(principal, action, resource);"
    texts = {"a": never * 3, "b": never + always, "c": never}
    assert Policies(texts).decide(FACTS, asks=False) == Authorized("b, policy 2")


def test_what_a_policy_allows_for_two_persons_needs_the_second() -> None:
    both = '@id("two") @two_persons("yes") permit(principal, action, resource);'
    assert asked(both) == NeedsApproval("two")
    assert asked(both + '@id("one") permit(principal, action, resource);') == Authorized("one")
    assert isinstance(asked(both + "forbid(principal, action, resource);"), Denied)


def test_what_no_policy_speaks_of_is_a_question_where_the_site_wants_it() -> None:
    assert isinstance(asked("", asks=True), Uncovered)
    assert isinstance(asked("", asks=False), Denied)
    forbidden = asked("forbid(principal, action, resource);", asks=True)
    assert isinstance(forbidden, Denied)  # that is no question


def test_a_policy_that_fails_while_it_is_asked_denies() -> None:
    text = "permit(principal, action, resource);"
    text += "forbid(principal, action, resource) when { context.minute + 9223372036854775807 > 0 };"
    answer = asked(text)
    assert isinstance(answer, Denied)
    assert answer.kind == "policy-error"


@pytest.mark.parametrize("name", ['"', "\\", "a\nb", "';permit(principal,action,resource);//", "\u202e"])
def test_names_from_elsewhere_are_names_and_no_policy(name: str) -> None:
    hostile = replace(FACTS, vm=VmName(name), groups=(name,), peer_state=name)
    assert isinstance(asked('permit(principal, action, resource == Vm::"web-1");', hostile), Denied)
    assert isinstance(asked("permit(principal, action, resource);", hostile), Authorized)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("permit(", "unexpected end"),
        ("permit(principal, action, resource) when { resource.size > 3 };", "size"),
        ('@id("fly") permit(principal, action == Action::"fly", resource);', "fly"),
        ("permit(principal == ?principal, action, resource);", "template"),
    ],
)
def test_what_is_wrong_with_a_policy_is_said_with_its_file(text: str, told: str) -> None:
    (problem, *_) = problems({"good.cedar": "", "site.cedar": text})
    assert problem.startswith("site.cedar: ")
    assert told in problem
    with pytest.raises(UsageError) as caught:
        Policies({"site.cedar": text})
    assert caught.value.kind == "bad-authorization"


def test_a_hundred_policies_decide_like_one() -> None:
    text = "".join(f'@id("p{n}") permit(principal, action, resource == Vm::"vm-{n}");\n' for n in range(100))
    policies = Policies({"many.cedar": text})
    assert len(policies) == 100
    assert policies.decide(replace(FACTS, vm=VmName("vm-73")), asks=False) == Authorized("p73")
    assert isinstance(policies.decide(FACTS, asks=False), Denied)
