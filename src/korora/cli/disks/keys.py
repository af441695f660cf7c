"""Who signs a diff, and whose signature is taken: the operator of the site, or keys that are named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from korora.cli.invocation import Invocation
from korora.cli.site import read_bytes
from korora.errors import UsageError
from korora.protocol import dsse

if TYPE_CHECKING:
    from korora.wiring.disk_diffs.making import Signer

_MAX_KEY_BYTES = 64 << 10


def signer(invocation: Invocation, key: Path | None, by: str | None) -> Signer:
    """UsageError when there is no key to sign with."""
    from korora.cli.migration.request import operator_key, operator_of
    from korora.model.identity import checked_name
    from korora.wiring.disk_diffs.making import Signer

    if key is not None:
        return Signer(checked_name(by or key.stem, "the signer's name"), operator_key(key))
    operator = operator_of(invocation.site)
    return Signer(by or operator.name, operator_key(operator.key))


def trusted(invocation: Invocation, signers: Sequence[Path]) -> Mapping[str, dsse.PublicKey]:
    """By key id: the keys in these files, or those of the site's operators."""
    keys = [_public_key(path) for path in signers] or _of_site(invocation)
    return {dsse.key_id(key): key for key in keys}


def _of_site(invocation: Invocation) -> list[dsse.PublicKey]:
    from korora.cli.evidence.anchors import operators_of
    from korora.cli.migration.request import operator_key

    site = invocation.site
    keys: list[dsse.PublicKey] = []
    if site.authorization is not None:
        keys += [ed25519.Ed25519PublicKey.from_public_bytes(key) for key in operators_of(site).values()]
    if site.operator is not None and site.operator.key.exists():
        keys.append(operator_key(site.operator.key).public_key())
    if not keys:
        raise UsageError(
            f"{site.origin} does not say whose diffs are taken",
            kind="no-anchor",
            remedy="name the signer's public key: --signer FILE",
        )
    return keys


def _public_key(path: Path) -> dsse.PublicKey:
    try:
        key = load_pem_public_key(read_bytes(path, "the signer's public key", _MAX_KEY_BYTES))
        if not isinstance(key, ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey):
            raise ValueError
        dsse.key_id(key)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{path} has no public key of a signer: Ed25519 or ECDSA P-256, in PEM",
            kind="bad-key",
            remedy=f"make it of the private key: openssl pkey -in KEY -pubout -out {path}",
        ) from error
    return key
