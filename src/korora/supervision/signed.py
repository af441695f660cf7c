"""What a person signs, a request, an answer or a word on a flag: by a key that this host knows, and in time.

Requirements S2, S5.
"""

from __future__ import annotations

from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from korora.errors import RefusedError
from korora.model.identity import HostName
from korora.ports.authorizer import Authorizer

CLOCK_SKEW_S: Final = 60
DAY_S: Final = 24 * 3600


class Host(Protocol):
    """Who is asked to believe it."""

    @property
    def host(self) -> HostName: ...
    @property
    def authorizer(self) -> Authorizer: ...


def key_of(at: Host, name: str) -> Ed25519PublicKey:
    """RefusedError(kind="unknown-operator") for somebody whom this host does not know."""
    raw = at.authorizer.operator_key(name)
    if raw is None:
        raise RefusedError(
            f"nobody named {name!r} may ask or answer anything of host {at.host}",
            kind="unknown-operator",
            remedy=f"add [operators.{name}] with the public key to the authorization.toml of {at.host}",
        )
    return Ed25519PublicKey.from_public_bytes(raw)


def check_time(what: str, issued_at: int, not_after: int, now: float, *, days: int) -> None:
    """RefusedError unless now lies between the two (Unix seconds), and they at most some days apart."""
    if now > not_after:
        raise RefusedError(
            f"the {what} expired {now - not_after:.0f} s ago",
            kind=f"expired-{what}",
            remedy="sign a new one, and compare this host's clock with the signer's",
        )
    if issued_at > now + CLOCK_SKEW_S or not_after - issued_at > days * DAY_S:
        raise RefusedError(
            f"the {what} is dated in the future, or valid for longer than {days * 24} hours",
            kind="bad-validity",
            remedy="sign a new one, and compare this host's clock with the signer's",
        )
