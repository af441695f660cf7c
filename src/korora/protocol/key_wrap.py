"""Wrap one migration's key for the destination's TPM.

Promise: a key is wrapped only for a key that the attested TPM made for this migration, cannot give away, and
uses only while its PCRs hold what was attested; it opens only in the context that it was wrapped for.
Limit: that the AK and the PCR values are the attested ones, and that nonce and ephemeral key are fresh, is
the caller's part.

The destination's side of the derivation (`opened`) is given the ECDH result by its TPM.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from korora.errors import IntegrityError, RefusedError
from korora.model.evidence import PcrValues
from korora.model.identity import Secret
from korora.model.tpm import WrappedKey, WrappingKey
from korora.policy import attest
from korora.policy.attest import Attribute, CreationData, CreationInfo, Public
from korora.policy.pcrs import pcr_digest, policy_pcr

NONCE_BYTES: Final = 32
MAX_KEY_BYTES: Final = 64

# Decrypts, nothing else; made in its TPM and stays there; opens by policy alone, so there is no password.
ATTRIBUTES: Final = (
    Attribute.FIXED_TPM
    | Attribute.FIXED_PARENT
    | Attribute.SENSITIVE_DATA_ORIGIN
    | Attribute.NO_LOCKOUT
    | Attribute.DECRYPT
)

_LABEL: Final = b"korora/1 key wrap"
_NULL_ALGORITHM: Final = 0x0010
_NULL_HIERARCHY: Final = 0x40000007
_GCM_NONCE: Final = bytes(12)  # may be fixed: each derived key seals one message


def wrap(
    key: Secret,
    wrapping: WrappingKey,
    *,
    ak_public: bytes,
    nonce: bytes,
    pcrs: PcrValues,
    context: bytes,
    ephemeral: ec.EllipticCurvePrivateKey,
) -> WrappedKey:
    """Check the wrapping key, then seal `key` for it.

    `nonce` is what the destination was asked to make the key for; `pcrs` the values that its quote
    attested; `context` says what the key is for (VM, session, epoch) and must be repeated at opening;
    `ephemeral` is a fresh P-256 key. IntegrityError(kind="wrapping-key", "quote-signature" or
    "malformed-attestation") when the wrapping key is not the one that was asked for.
    """
    if not 0 < len(key) <= MAX_KEY_BYTES:
        raise ValueError(f"a wrapped key has 1 to {MAX_KEY_BYTES} bytes, not {len(key)}")
    public = checked(wrapping, attest.parse_public(ak_public), nonce=nonce, pcrs=pcrs)
    assert isinstance(public.key, ec.EllipticCurvePublicKey)  # noqa: S101 - `checked` saw to it
    point = point_bytes(ephemeral.public_key())
    shared = Secret(ephemeral.exchange(ec.ECDH(), public.key))
    secret = wrapping_secret(shared, ephemeral=point, key_name=public.name, nonce=nonce)
    return WrappedKey(point, AESGCM(secret.reveal()).encrypt(_GCM_NONCE, key.reveal(), context))


def opened(shared: Secret, wrapped: WrappedKey, *, key_name: bytes, nonce: bytes, context: bytes) -> Secret:
    """The key, given the ECDH result of the wrapping key's TPM.

    RefusedError(kind="wrapped-key") when key, nonce, context or ciphertext are not those of `wrap`.
    """
    secret = wrapping_secret(shared, ephemeral=wrapped.ephemeral, key_name=key_name, nonce=nonce)
    try:
        return Secret(AESGCM(secret.reveal()).decrypt(_GCM_NONCE, wrapped.ciphertext, context))
    except (InvalidTag, ValueError) as error:
        raise RefusedError(
            "the wrapped key is not for this TPM key and this migration",
            kind="wrapped-key",
            remedy="start the migration again; if it recurs, somebody changes messages between the hosts",
        ) from error


def wrapping_secret(shared: Secret, *, ephemeral: bytes, key_name: bytes, nonce: bytes) -> Secret:
    """HKDF-SHA256 of the ECDH x-coordinate (32 bytes): the AES-256-GCM key of one wrapped key.

    Salt: nonce. Info: label ‖ ephemeral point ‖ name of the wrapping key (both of fixed length).
    """
    derivation = HKDF(hashes.SHA256(), 32, salt=nonce, info=_LABEL + ephemeral + key_name)
    return Secret(derivation.derive(shared.reveal()))


def point_bytes(key: ec.EllipticCurvePublicKey) -> bytes:
    """x ‖ y, 32 bytes each."""
    numbers = key.public_numbers()
    return numbers.x.to_bytes(32) + numbers.y.to_bytes(32)


def checked(wrapping: WrappingKey, ak: Public, *, nonce: bytes, pcrs: PcrValues) -> Public:
    """The wrapping key's public area, once everything about it is as it must be. IntegrityError otherwise."""
    public = attest.parse_public(wrapping.public)
    made = attest.parse_creation_data(wrapping.creation_data)
    certificate = attest.verify_attestation(wrapping.certification, ak)
    info = certificate.attested
    if not isinstance(info, CreationInfo):
        raise _wrong("its certification is a quote, not a creation certificate")
    if len(nonce) != NONCE_BYTES or certificate.extra_data != nonce or made.outside_info != nonce:
        raise _wrong("it was made for another migration")
    if info.object_name != public.name or info.creation_hash != made.digest:
        raise _wrong("its certificate is for another key")
    _check_rights(public, pcrs)
    _check_birth(made, pcrs)
    return public


def _check_rights(public: Public, pcrs: PcrValues) -> None:
    key = public.key
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _wrong("it is no P-256 key")
    if (public.symmetric, public.scheme) != (_NULL_ALGORITHM, _NULL_ALGORITHM):
        raise _wrong("it is bound to a scheme, so it does not do plain ECDH")
    if public.attributes != ATTRIBUTES:
        raise _wrong(f"it has the rights {public.attributes!r}, not {ATTRIBUTES!r}")
    if public.auth_policy != policy_pcr(pcrs):
        raise _wrong("its policy is not bound to the PCR values that were attested")


def _check_birth(made: CreationData, pcrs: PcrValues) -> None:
    if made.pcrs != tuple(sorted(pcrs)) or made.pcr_digest != pcr_digest(pcrs):
        raise _wrong("it was made under other PCR values than those that were attested")
    # A parent in the null hierarchy dies with the boot: after a reset the key can never be loaded again.
    if made.parent_qualified_name != attest.qualified_name(_NULL_HIERARCHY, [made.parent_name]):
        raise _wrong("its parent is not a primary key of the null hierarchy, so it would outlive a reset")


def _wrong(reason: str) -> IntegrityError:
    return IntegrityError(
        f"the destination's wrapping key cannot be used: {reason}",
        kind="wrapping-key",
        remedy="do not send the vTPM there; attest the destination again and find out why its TPM differs",
    )
