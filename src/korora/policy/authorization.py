"""The plain access list: these operators may migrate these VMs from these hosts to those (S2).

Promise: what no rule allows is denied, and a text with anything unknown or misspelt in it is refused whole.
Limit: decides by names alone. Whether the request was really signed, is fresh and unused is the session's
to check, before it asks here.

    [operators.alice]
    key = "<32 bytes of an Ed25519 public key, in hex or base64>"

    [[allow]]
    operators = ["alice"]       # shell patterns, here and below
    vms = ["web-*"]
    from = ["north"]
    to = ["south", "east"]
"""

from __future__ import annotations

import base64
import binascii
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import msgspec

from korora.errors import UsageError
from korora.model.authorization import Authorized, Denied
from korora.model.identity import OperatorName, checked_name
from korora.model.plan import MigrationRequest

PROCEDURE = "migrate"

Patterns = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """One `[[allow]]`; `number` counts from 1 in the order of the file."""

    number: int
    operators: Patterns
    vms: Patterns
    sources: Patterns
    destinations: Patterns

    @property
    def name(self) -> str:
        """How a receipt names it."""
        return (
            f"allow {self.number}: {', '.join(self.operators)} may migrate {', '.join(self.vms)}"
            f" from {', '.join(self.sources)} to {', '.join(self.destinations)}"
        )

    def allows(self, request: MigrationRequest) -> bool:
        return (
            _matches(request.operator, self.operators)
            and _matches(request.vm, self.vms)
            and _matches(request.source, self.sources)
            and _matches(request.destination, self.destinations)
        )


@dataclass(frozen=True, slots=True)
class AccessList:
    """All rules of one host, with the public keys (32 bytes, Ed25519) of the operators it knows."""

    keys: Mapping[OperatorName, bytes]
    rules: tuple[Rule, ...]

    def decide(self, request: MigrationRequest) -> Authorized | Denied:
        """The first rule that allows it; otherwise the nearest reason why none does."""
        if request.procedure != PROCEDURE:
            return Denied(
                "unknown-procedure",
                f"nobody may ask for {request.procedure!r} here",
                f"ask for {PROCEDURE!r}",
            )
        if request.operator not in self.keys:
            return Denied(
                "unknown-operator",
                f"this host does not know the operator {request.operator!r}",
                f"add [operators.{request.operator}] with the operator's public key to authorization.toml",
            )
        for rule in self.rules:
            if rule.allows(request):
                return Authorized(by=rule.name)
        return Denied(
            "not-allowed",
            f"no rule lets {request.operator} migrate {request.vm} from {request.source}"
            f" to {request.destination}",
            "ask an administrator for an [[allow]] rule in authorization.toml on both hosts",
        )


class _Operator(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: str


class _Allow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"sources": "from"}):
    operators: Patterns
    vms: Patterns
    sources: Patterns
    to: Patterns


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    operators: dict[str, _Operator] = {}
    allow: tuple[_Allow, ...] = ()


def parse(text: str) -> AccessList:
    """Read authorization.toml. UsageError(kind="bad-authorization") names the first thing that is wrong."""
    try:
        read = msgspec.convert(tomllib.loads(text), _File)
    except (ValueError, msgspec.ValidationError, RecursionError) as error:
        raise _malformed(str(error)) from error
    keys = {_operator(name): _public_key(name, entry.key) for name, entry in read.operators.items()}
    rules = tuple(_rule(number, allow) for number, allow in enumerate(read.allow, start=1))
    for rule in rules:
        _check_operators_exist(rule, keys)
    return AccessList(keys, rules)


def _rule(number: int, allow: _Allow) -> Rule:
    parts = {"operators": allow.operators, "vms": allow.vms, "from": allow.sources, "to": allow.to}
    for word, patterns in parts.items():
        if not patterns or "" in patterns:
            # An empty list reads like "anything" to some and "nothing" to others.
            raise _malformed(f"rule {number}: {word!r} must name something; write ['*'] for all")
    return Rule(number, *parts.values())


def _check_operators_exist(rule: Rule, keys: Mapping[OperatorName, bytes]) -> None:
    """A rule for somebody misspelt would be silently dead."""
    for pattern in rule.operators:
        if not any(fnmatchcase(name, pattern) for name in keys) and pattern != "*":
            raise _malformed(f"rule {rule.number} speaks of the operator {pattern!r}, who has no key here")


def _operator(name: str) -> OperatorName:
    return OperatorName(checked_name(name, "operator"))


def _public_key(name: str, text: str) -> bytes:
    for decode in (bytes.fromhex, _strict_base64):
        try:
            key = decode(text)
        except (ValueError, binascii.Error):
            continue
        if len(key) == 32:
            return key
    raise _malformed(f"the key of operator {name!r} is not 32 bytes in hex or base64")


def _strict_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _matches(name: str, patterns: Patterns) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _malformed(problem: str) -> UsageError:
    return UsageError(
        f"the rules cannot be used: {problem}",
        kind="bad-authorization",
        remedy="correct authorization.toml; until then nobody is allowed anything",
    )
