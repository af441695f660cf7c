"""Signed statements in the DSSE format: one JSON text carries a payload, its type and its signatures.

Promise: `opened` gives back a payload only when enough of the given keys signed exactly these bytes under
exactly this type. An envelope has one spelling: other white space, order, base64 padding bits or an
unexpected field is refused, so that an envelope's digest names the statement. Limit: it says who signed,
not whether the statement is true, fresh or wanted; a signature under a key that was not given is ignored.

Source: DSSE v1.0.2 (github.com/secure-systems-lab/dsse), protocol.md and envelope.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from korora.errors import IntegrityError

PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey
PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey

MAX_ENVELOPE_BYTES = 16 * 1024 * 1024
MAX_SIGNATURES = 16

# RFC 6979: a signature needs no randomness, so the core draws none.
_ECDSA = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)


class SigningKey(Protocol):
    """Signs for one public key, wherever the private half lives."""

    @property
    def key_id(self) -> str:
        """`key_id` of the public half."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Ed25519 (64 bytes), or ECDSA P-256 over SHA-256 (DER)."""
        ...


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private key in this process's memory. Only Ed25519 and P-256; ValueError for another."""

    private: PrivateKey = field(repr=False)
    key_id: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key_id", key_id(self.private.public_key()))

    @classmethod
    def from_pem(cls, pem: bytes) -> KeyPair:
        """From an unencrypted PEM private key. ValueError when it is no such key."""
        private = serialization.load_pem_private_key(pem, password=None)
        if not isinstance(private, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
            raise ValueError("only Ed25519 and ECDSA P-256 keys sign here")
        return cls(private)

    def public_key(self) -> PublicKey:
        return self.private.public_key()

    def sign(self, data: bytes) -> bytes:
        if isinstance(self.private, ed25519.Ed25519PrivateKey):
            return self.private.sign(data)
        return self.private.sign(data, _ECDSA)


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keyid: str
    sig: bytes


class Envelope(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"payload_type": "payloadType"}
):
    """The wire form; bytes are base64 in JSON, fields in this order."""

    payload: bytes
    payload_type: str
    signatures: tuple[Signature, ...]


def key_id(public_key: PublicKey) -> str:
    """`sha256:` and the hex SHA-256 of the key's SubjectPublicKeyInfo in DER. ValueError off P-256."""
    return "sha256:" + hashlib.sha256(_spki(public_key)).hexdigest()


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed: PAE(type, body) of the DSSE protocol."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def envelope(payload_type: str, payload: bytes, keys: Sequence[SigningKey]) -> bytes:
    """Sign the payload with every key; returns the envelope's JSON, at most MAX_ENVELOPE_BYTES long."""
    signed = pre_authentication(payload_type, payload)
    signatures = tuple(Signature(key.key_id, key.sign(signed)) for key in keys)
    return _encoded(Envelope(payload, payload_type, signatures))


def countersign(envelope: bytes, key: SigningKey) -> bytes:
    """Add this key's signature behind the others, replacing one it made before.

    Checks no other signature: whoever reads the result with `opened` does.
    """
    read = parse(envelope)
    signature = Signature(key.key_id, key.sign(pre_authentication(read.payload_type, read.payload)))
    others = tuple(old for old in read.signatures if old.keyid != key.key_id)
    return _encoded(Envelope(read.payload, read.payload_type, (*others, signature)))


def opened(
    envelope: bytes,
    payload_type: str,
    trusted: Mapping[str, PublicKey],
    threshold: int = 1,
    *,
    limit: int = MAX_ENVELOPE_BYTES,
) -> bytes:
    """The payload, once `threshold` different trusted keys (by `key_id`) are seen to have signed it.

    IntegrityError(kind="signature") for anything else: malformed, too large, of another type, too few
    signatures, or any signature under a trusted key that does not verify.
    """
    if threshold < 1:
        raise ValueError("a threshold below one would trust anybody")
    read = parse(envelope, limit=limit)
    if read.payload_type != payload_type:
        raise _broken(f"the statement is a {read.payload_type[:100]!r}, not a {payload_type!r}")
    signers = _signers(read, trusted)
    if len(signers) < threshold:
        raise _broken(f"{len(signers)} of the expected keys signed it, {threshold} must")
    return read.payload


def parse(envelope: bytes, *, limit: int = MAX_ENVELOPE_BYTES) -> Envelope:
    """The envelope as written, unverified. IntegrityError(kind="signature") unless in its one spelling."""
    if len(envelope) > limit:
        raise _broken(f"the envelope has {len(envelope)} bytes, more than the limit of {limit}")
    try:
        read = msgspec.json.decode(envelope, type=Envelope)
        # One statement, one spelling: otherwise a changed byte could go unnoticed.
        canonical = msgspec.json.encode(read) == envelope
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise _broken(f"the envelope cannot be read: {error}") from error
    if not canonical:
        raise _broken("the envelope is not in canonical form")
    if len(read.signatures) > MAX_SIGNATURES or not _distinct(read.signatures):
        raise _broken("the envelope has too many signatures, or two of one key")
    return read


def _signers(read: Envelope, trusted: Mapping[str, PublicKey]) -> set[bytes]:
    """The different public keys that signed; a trusted key's bad signature is an error, not an absence."""
    signed = pre_authentication(read.payload_type, read.payload)
    signers: set[bytes] = set()
    for signature in read.signatures:
        key = trusted.get(signature.keyid)
        if key is None:
            continue
        _verify(key, signature.sig, signed, signature.keyid)
        signers.add(_spki(key))
    return signers


def _verify(key: PublicKey, signature: bytes, signed: bytes, name: str) -> None:
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, signed)
        else:
            key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise _broken(f"the signature of {name} is wrong") from error


def _spki(key: PublicKey) -> bytes:
    if isinstance(key, ec.EllipticCurvePublicKey) and not isinstance(key.curve, ec.SECP256R1):
        raise ValueError(f"curve {key.curve.name} is not used here, only P-256")
    der = serialization.Encoding.DER
    return key.public_bytes(der, serialization.PublicFormat.SubjectPublicKeyInfo)


def _distinct(signatures: Sequence[Signature]) -> bool:
    return len({signature.keyid for signature in signatures}) == len(signatures)


def _encoded(built: Envelope) -> bytes:
    text = msgspec.json.encode(built)
    if len(text) > MAX_ENVELOPE_BYTES:
        raise ValueError(f"an envelope may have {MAX_ENVELOPE_BYTES} bytes, not {len(text)}")
    return text


def _broken(message: str) -> IntegrityError:
    return IntegrityError(
        message,
        kind="signature",
        remedy="ask for the statement again; if it stays wrong, find out who changed it",
    )
