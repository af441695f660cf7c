"""Both hosts ask the same questions of an operator's request before anything else (S2, S5).

Signed by whom it names, in time, for this VM and these hosts, never seen before, and allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from korora.errors import QuestionError, RefusedError
from korora.migration.setting import Setting
from korora.model.authorization import Authorized, Denied, NeedsApproval, Uncovered
from korora.model.identity import HostName
from korora.model.plan import MigrationRequest
from korora.protocol import dsse, statements

CLOCK_SKEW_S: Final = 60
LONGEST_VALIDITY_S: Final = 24 * 3600


@dataclass(frozen=True, slots=True)
class Admission:
    """The request, and the rule that allows it."""

    envelope: bytes
    request: MigrationRequest
    by: str


def admit(
    setting: Setting,
    envelope: bytes,
    *,
    source: HostName,
    destination: HostName,
    peer_state: str | None = None,
) -> Admission:
    """Check the request and spend its nonce, durably. RefusedError otherwise, each with its own kind;
    QuestionError when a person must decide. `peer_state` as `Authorizer.decide`.
    """
    request = _opened(setting, envelope)
    _check_time(request, setting.clock.now())
    if (request.source, request.destination) != (source, destination):
        raise RefusedError(
            f"the request moves {request.vm} from {request.source} to {request.destination},"
            f" but it was brought to a session from {source} to {destination}",
            kind="request-mismatch",
            remedy="send the request to the host that it names as source",
        )
    by = allowed(setting, request, peer_state)
    if not setting.journal.spend_nonce(request.nonce, request.not_after):
        raise RefusedError(
            "this request was used before",
            kind="replayed-request",
            remedy="a request is good for one migration: sign a new one (the command line does it each time)",
        )
    return Admission(envelope, request, by)


def allowed(setting: Setting, request: MigrationRequest, peer_state: str | None) -> str:
    """The policies that allow it now. RefusedError or QuestionError otherwise; nothing is spent."""
    match setting.authorizer.decide(request, setting.clock.now(), peer_state):
        case Authorized(by):
            return by
        case Denied(kind, reason, remedy):
            raise RefusedError(reason, kind=kind, remedy=remedy)
        case NeedsApproval(by):
            raise QuestionError(
                f"{by} lets {request.operator} migrate {request.vm} only if a second person agrees",
                kind="needs-approval",
                remedy="no command takes that agreement yet: ask whoever keeps the policies of this host",
            )
        case Uncovered(reason):
            raise QuestionError(
                reason,
                kind="question",
                remedy=f"whoever keeps the policies of {setting.host} decides: a policy in policies/*.cedar",
            )


def _opened(setting: Setting, envelope: bytes) -> MigrationRequest:
    claimed = statements.peek_request(envelope)
    raw = setting.authorizer.operator_key(claimed.operator)
    if raw is None:
        raise RefusedError(
            f"nobody named {claimed.operator!r} may ask anything of host {setting.host}",
            kind="unknown-operator",
            remedy=f"add the operator's key to the authorization file of {setting.host}",
        )
    key = Ed25519PublicKey.from_public_bytes(raw)
    return statements.open_request(envelope, {dsse.key_id(key): key})


def _check_time(request: MigrationRequest, now: float) -> None:
    if now > request.not_after:
        raise RefusedError(
            f"the request expired {now - request.not_after:.0f} s ago",
            kind="expired-request",
            remedy="sign a new one, and compare this host's clock with the operator's",
        )
    if request.issued_at > now + CLOCK_SKEW_S or request.not_after - request.issued_at > LONGEST_VALIDITY_S:
        raise RefusedError(
            "the request is dated in the future, or valid for longer than a day",
            kind="bad-validity",
            remedy="sign a new one, and compare this host's clock with the operator's",
        )
