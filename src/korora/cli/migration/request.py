"""The operator's signed request: who asks for what, once, and until when (S2, S5)."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from korora.cli.site import read_bytes
from korora.errors import UsageError
from korora.model.identity import HostName, VmName
from korora.model.plan import MigrationRequest, Mode
from korora.model.site import Operator, SiteConfiguration
from korora.model.storage import NO_DISKS, DisksAsked
from korora.protocol.dsse import KeyPair, envelope
from korora.protocol.statements import REQUEST_TYPE, encode_request

VALID_S = 600


def signed_request(
    site: SiteConfiguration,
    vm: str,
    source: str,
    destination: str,
    mode: Mode,
    disks: DisksAsked = NO_DISKS,
    *,
    valid_s: int = VALID_S,
) -> bytes:
    """A fresh request as a DSSE envelope, signed by the site's operator.

    UsageError when there is no operator, or the key cannot be used.
    """
    operator = operator_of(site)
    now = int(time.time())
    request = MigrationRequest(
        operator=operator.name,
        procedure="migrate",
        vm=VmName(vm),
        source=HostName(source),
        destination=HostName(destination),
        mode=mode,
        nonce=secrets.token_hex(32),
        issued_at=now,
        not_after=now + valid_s,
        disks=disks,
    )
    return envelope(REQUEST_TYPE, encode_request(request), [operator_key(operator.key)])


def operator_of(site: SiteConfiguration) -> Operator:
    if site.operator is None:
        raise UsageError(
            f"{site.origin} does not say who asks",
            kind="no-operator",
            remedy='add [operator] with name = "…" and key = "operator.pem" (an Ed25519 private key)',
        )
    return site.operator


def operator_key(path: Path) -> KeyPair:
    """The operator's private key. UsageError when it cannot be read or is of another kind."""
    pem = read_bytes(path, "the operator's key")
    try:
        return KeyPair.from_pem(pem)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"the operator's key {path} cannot be used: it is no unencrypted Ed25519 private key in PEM",
            kind="bad-key",
            remedy=f"make one: openssl genpkey -algorithm ed25519 -out {path}; then have it allowed",
        ) from error
