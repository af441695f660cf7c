"""A policy that comes as an answer: by its scope it never permits another action, nor its author anything."""

from __future__ import annotations

import itertools
import json

import cedarpy
import pytest

from korora.adapters.authorization.answered import gives_too_much
from korora.adapters.authorization.cedar import SCHEMA
from korora.model.identity import OperatorName
from korora.policy.authorization import ACTIONS

BOB = OperatorName("bob")
GROUPS = {"alice": ("web",), "bob": ("ops",), "carol": ("ops", "web")}
PRINCIPALS = (
    "principal",
    *(f'principal == Operator::"{name}"' for name in GROUPS),
    *(f'principal in Group::"{name}"' for name in ("web", "ops", "none")),
    "principal is Operator",
    'principal is Operator in Group::"ops"',
    'principal is Operator in Group::"web"',
)
ACTION_SCOPES = (
    "action",
    *(f'action == Action::"{name}"' for name in ACTIONS),
    'action in [Action::"migrate"]',
    'action in Action::"migrate"',
    'action in [Action::"migrate", Action::"govern"]',
    "action in []",
)
CONDITIONS = ("", 'when { principal.name != "bob" }', 'unless { resource.name == "mail" }')
HOST = {"__entity": {"type": "Host", "id": "a"}}
CONTEXT = {"source": HOST, "destination": HOST, "mode": "live", "day": "mon", "minute": 1, "windows": []}


def permitted(policy: str) -> set[tuple[str, str]]:
    """Who may do what to a VM, in all of a small world."""
    return {
        (name, action) for name, action in itertools.product(GROUPS, ACTIONS) if permits(policy, name, action)
    }


def permits(policy: str, name: str, action: str) -> bool:
    groups = [{"type": "Group", "id": group} for group in GROUPS[name]]
    entities = [
        {"uid": {"type": "Operator", "id": name}, "attrs": {"name": name}, "parents": groups},
        {"uid": {"type": "Vm", "id": "db"}, "attrs": {"name": "db", "labels": []}, "parents": []},
        {"uid": {"type": "Host", "id": "a"}, "attrs": {"name": "a", "labels": []}, "parents": []},
        *({"uid": group, "attrs": {}, "parents": []} for group in groups),
    ]
    request = {
        "principal": f'Operator::"{name}"',
        "action": f'Action::"{action}"',
        "resource": 'Vm::"db"',
        "context": CONTEXT,
    }
    return bool(cedarpy.is_authorized(request, policy, entities, SCHEMA).allowed)


def test_what_is_taken_permits_one_action_and_nothing_to_its_author_in_a_whole_small_world() -> None:
    given: set[tuple[str, str]] = set()
    for principal, action, condition in itertools.product(PRINCIPALS, ACTION_SCOPES, CONDITIONS):
        policy = f"permit({principal}, {action}, resource) {condition};"
        if not gives_too_much(policy, "migrate", BOB, GROUPS["bob"]):
            given |= permitted(policy)
    assert given == {("alice", "migrate"), ("carol", "migrate")}


@pytest.mark.parametrize(
    "policy",
    [
        'permit(principal == Operator::"alice", action == Action::"migrate", resource);',
        'permit(principal in Group::"web", action in [Action::"migrate"], resource == Vm::"db");',
        "forbid(principal, action, resource);",
    ],
)
def test_what_gives_only_what_was_asked_is_taken(policy: str) -> None:
    assert gives_too_much(policy, "migrate", BOB, GROUPS["bob"]) == ""


@pytest.mark.parametrize(
    "bad",
    [
        'permit(principal == Operator::"alice", action == Action::"approve", resource);',
        'permit(principal == Operator::"bob", action == Action::"migrate", resource);',
        'permit(principal in Group::"ops", action == Action::"migrate", resource);',
    ],
)
def test_one_policy_too_many_spoils_the_text(bad: str) -> None:
    good = 'permit(principal == Operator::"alice", action == Action::"migrate", resource);'
    for text in (good + bad, bad + good):
        assert len(json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]) == 2
        assert gives_too_much(text, "migrate", BOB, GROUPS["bob"])
