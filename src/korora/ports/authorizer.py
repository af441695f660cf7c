"""Who may migrate what from where to where. The engine behind it may change; the answer is a value."""

from __future__ import annotations

from typing import Protocol

from korora.model.authorization import Answer, Authorized, Denied, NeedsApproval, Uncovered
from korora.model.identity import OperatorName
from korora.model.plan import MigrationRequest

__all__ = ["Answer", "Authorized", "Authorizer", "Denied", "NeedsApproval", "Uncovered"]


class Authorizer(Protocol):
    def operator_key(self, operator: str) -> bytes | None:
        """The operator's Ed25519 public key (32 bytes), or None if nobody of that name is known."""
        ...

    def operator_of(self, account: str) -> OperatorName | None:
        """Who uses this account of the machine, or None if no operator is known to."""
        ...

    def decide(self, request: MigrationRequest, now: float, peer_state: str | None = None) -> Answer:
        """`now` in Unix seconds; `peer_state`: the trusted state that the other host is in, once attested."""
        ...

    def check_policy(self, policy: str, request: MigrationRequest, author: OperatorName, now: float) -> None:
        """RefusedError(kind="unsound-policy") when this text, beside the policies in force, cannot be read,
        does not allow this very request, could ever permit another action or its author anything, or lets one
        of the site's examples come out otherwise than expected.
        """
        ...

    def adopt(self, name: str, policy: str) -> None:
        """Put a policy in force, durably. OSError when the disk does not take it; nothing has changed."""
        ...
