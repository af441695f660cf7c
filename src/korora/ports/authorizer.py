"""Who may migrate what from where to where. The policy engine behind this port may change; the answer is a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from korora.model.plan import MigrationRequest


@dataclass(frozen=True, slots=True)
class Authorized:
    """Yes. `by` names the rule, for the receipt."""

    by: str


@dataclass(frozen=True, slots=True)
class Denied:
    kind: str
    reason: str
    remedy: str


class Authorizer(Protocol):
    def operator_key(self, operator: str) -> bytes | None:
        """The operator's Ed25519 public key (32 bytes), or None if nobody of that name is known."""
        ...

    def decide(self, request: MigrationRequest) -> Authorized | Denied: ...
