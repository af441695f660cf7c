"""Who may migrate what from where to where. The engine behind it may change; the answer is a value."""

from __future__ import annotations

from typing import Protocol

from korora.model.authorization import Authorized, Denied
from korora.model.plan import MigrationRequest

__all__ = ["Authorized", "Authorizer", "Denied"]


class Authorizer(Protocol):
    """Both methods raise UsageError(kind="bad-authorization") while the rules cannot be read."""

    def operator_key(self, operator: str) -> bytes | None:
        """The operator's Ed25519 public key (32 bytes), or None if nobody of that name is known."""
        ...

    def decide(self, request: MigrationRequest) -> Authorized | Denied: ...
