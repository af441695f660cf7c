"""Cedar policies, asked about the facts of a request.

Promise: what no policy permits is denied, a forbid overrules every permit, and a policy that fails while it
is asked denies: Cedar would leave it out, which for a forbid is the wrong way.
Limit: policies are checked against the schema when they are read, not when they are asked.

Source: the Cedar policy language, docs.cedarpolicy.com.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import cedarpy

from korora.model.authorization import Answer, Authorized, Denied, NeedsApproval, Uncovered
from korora.policy.authorization import Facts, malformed

SCHEMA: Final = (files(__package__) / "korora.cedarschema").read_text()
SECOND_PERSON: Final = "two_persons"
"""An annotation: what this policy permits needs a second person. `@two_persons("yes") permit (…);`"""


@dataclass(frozen=True, slots=True)
class _Named:
    """A policy by how an administrator finds it."""

    name: str
    two_persons: bool


class Policies:
    """All policy files of one host, read and checked."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        """File name → text. UsageError(kind="bad-authorization") names the file that is wrong first."""
        for problem in problems(texts):
            raise malformed(problem)
        self._schema = cedarpy.Schema.from_str(SCHEMA)
        self._set = cedarpy.PolicySet.from_str("\n".join(texts.values()))
        self._names = [named for file, text in texts.items() for named in _named(file, text)]

    def __len__(self) -> int:
        return len(self._names)

    def decide(self, facts: Facts, *, asks: bool) -> Answer:
        said = cedarpy.is_authorized(_request(facts), self._set, _entities(facts), self._schema)
        if said.diagnostics.errors:
            return Denied(
                "policy-error",
                f"a policy failed while it was asked: {said.diagnostics.errors[0]}",
                "correct it: korora policy check",
            )
        by = [self._names[int(policy.removeprefix("policy"))] for policy in said.diagnostics.reasons]
        if said.allowed:
            return _allowed(by)
        if by:
            return Denied(
                "forbidden",
                f"{facts.operator} may not {_deed(facts)}: {_list(by)} forbids it",
                "ask whoever keeps the policies of this host",
            )
        return _uncovered(facts, asks=asks)


def problems(texts: Mapping[str, str]) -> Sequence[str]:
    """What is wrong with these files, each with its file's name; nothing, if they can be used."""
    found = []
    for file, text in texts.items():
        try:
            names = _named(file, text)
            checked = cedarpy.validate_policies(text, SCHEMA)
        except ValueError as error:
            found.append(f"{file}: {error}")
            continue
        found += [f"{file}: {_with_name(error.error, names)}" for error in checked.errors]
    return found


def _with_name(error: str, names: Sequence[_Named]) -> str:
    for number, named in reversed(list(enumerate(names))):
        error = error.replace(f"`policy{number}`", f"`{named.name}`")
    return error


def _named(file: str, text: str) -> list[_Named]:
    """In the order of the text. ValueError if it is no Cedar."""
    read = json.loads(cedarpy.policies_to_json_str(text))
    if read.get("templates"):
        raise ValueError("a template is no policy: nothing fills its slots here")
    numbered = sorted(read["staticPolicies"].items(), key=lambda item: int(item[0].removeprefix("policy")))
    return [_policy(file, number, policy) for number, (_, policy) in enumerate(numbered, start=1)]


def _policy(file: str, number: int, policy: Mapping[str, Any]) -> _Named:
    annotations = policy.get("annotations") or {}
    name = annotations.get("id") or f"{file}, policy {number}"
    return _Named(name, SECOND_PERSON in annotations)


def _allowed(by: Sequence[_Named]) -> Answer:
    alone = [named for named in by if not named.two_persons]
    return Authorized(_list(alone)) if alone else NeedsApproval(_list(by))


def _uncovered(facts: Facts, *, asks: bool) -> Answer:
    reason = f"no policy lets {facts.operator} {_deed(facts)}"
    if asks:
        return Uncovered(reason)
    return Denied("not-allowed", reason, "ask whoever keeps the policies (policies/*.cedar) of both hosts")


def _deed(facts: Facts) -> str:
    return f"{facts.action} {facts.vm} from {facts.source} to {facts.destination}"


def _list(by: Sequence[_Named]) -> str:
    return ", ".join(sorted(named.name for named in by))


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "id": name}


def _entity(kind: str, name: str, parents: Sequence[str] = (), **attributes: object) -> dict[str, Any]:
    above = [_uid("Group", parent) for parent in parents]
    return {"uid": _uid(kind, name), "attrs": {"name": name} | attributes, "parents": above}


def _entities(facts: Facts) -> list[dict[str, Any]]:
    """Only what the request speaks of: five, however large the site is."""
    hosts = {facts.source: facts.source_labels, facts.destination: facts.destination_labels}
    return [
        _entity("Operator", facts.operator, facts.groups),
        _entity("Vm", facts.vm, labels=list(facts.vm_labels)),
        *(_entity("Host", name, labels=list(labels)) for name, labels in hosts.items()),
        *({"uid": _uid("Group", group), "attrs": {}, "parents": []} for group in set(facts.groups)),
    ]


def _request(facts: Facts) -> dict[str, Any]:
    context: dict[str, Any] = {
        "source": {"__entity": _uid("Host", facts.source)},
        "destination": {"__entity": _uid("Host", facts.destination)},
        "mode": facts.mode,
        "day": facts.day,
        "minute": facts.minute,
        "windows": list(facts.windows),
    }
    if facts.peer_state is not None:
        context["peer_state"] = facts.peer_state
    return {
        "principal": _uid("Operator", facts.operator),
        "action": _uid("Action", facts.action),
        "resource": _uid("Vm", facts.vm),
        "context": context,
    }
