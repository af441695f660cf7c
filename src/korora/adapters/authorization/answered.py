"""What a policy that comes as somebody's answer can give at most, over all requests there may ever be.

Promise, shown from the scope of each policy in the text: it permits the one action that the question was
about, never to approve or to govern, and it permits its author nothing. A forbid gives nobody anything.
Limit: who is in a group is as authorization.toml says now.

Source: docs.cedarpolicy.com, "policy syntax": a policy says nothing of a request outside of its scope,
whatever its conditions are. So to look at scopes is a proof; it may refuse a policy whose conditions would
have narrowed it, and never takes one that gives more.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import cedarpy

from korora.model.identity import OperatorName


def gives_too_much(text: str, action: str, author: OperatorName, groups: Collection[str]) -> str:
    """Why it must not be taken; empty if it may be. `text` is Cedar; `groups` are the author's."""
    for policy in json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values():
        if policy["effect"] == "permit":
            for problem in _too_much(policy, action, author, groups):
                return problem
    return ""


def _too_much(
    policy: Mapping[str, Any], action: str, author: OperatorName, groups: Collection[str]
) -> Iterator[str]:
    if not _is_only(policy["action"], action):
        yield f'it does not say action == Action::"{action}", so it permits more than was asked'
    if _may_be(policy["principal"], author, groups):
        yield (
            f"it may permit {author}, who gives the answer, something; "
            f"say principal == or in, and whom or which group without {author}"
        )


def _is_only(scope: Mapping[str, Any], action: str) -> bool:
    """Actions have no parents here, so `in` and `==` of one are the same."""
    named = scope.get("entities") or [scope.get("entity")]
    return all(one is not None and one["id"] == action for one in named)


def _may_be(scope: Mapping[str, Any], author: OperatorName, groups: Collection[str]) -> bool:
    inside = scope.get("in") or scope
    entity = inside.get("entity")
    if entity is None:
        return True
    return entity["id"] == author if entity["type"] == "Operator" else entity["id"] in groups
