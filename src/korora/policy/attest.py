"""Read what a TPM marshalled and signed: public areas, attestations, creation data, signatures.

Promise: a value comes back only from bytes that are exactly one such structure, with nothing left over;
anything else is IntegrityError(kind="malformed-attestation"). Limit: RSA and ECC public areas with SHA-256
or SHA-384 names, quotes and creation certificates, ECDSA signatures. Whether a value is *wanted* is
decided by the callers.

Source: TCG TPM 2.0 Library, part 2: 10.12 (attestation), 11.3 (signatures), 12.2 (public area), 15.1
(creation data); part 1: 16 (names). Integers are big-endian.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from korora.errors import IntegrityError
from korora.model.evidence import Quote
from korora.policy.cursor import Cursor

MAX_STRUCTURE_BYTES: Final = 4096

_GENERATED: Final = 0xFF544347  # TPM_GENERATED_VALUE: only the TPM itself signs data that starts so
_RSA, _ECC = 0x0001, 0x0023
_NULL, _ECDSA, _SHA256, _SHA384 = 0x0010, 0x0018, 0x000B, 0x000C
_RSAES, _ECDAA = 0x0015, 0x001A
_NAME_HASHES: Final = {_SHA256: hashlib.sha256, _SHA384: hashlib.sha384}
_CURVES: Final[dict[int, type[ec.EllipticCurve]]] = {0x0003: ec.SECP256R1, 0x0004: ec.SECP384R1}


class Attribute(IntFlag):
    """TPMA_OBJECT (part 2, 8.3)."""

    FIXED_TPM = 1 << 1
    CLEAR_ON_RESET = 1 << 2
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    USER_WITH_AUTH = 1 << 6
    ADMIN_WITH_POLICY = 1 << 7
    NO_LOCKOUT = 1 << 10
    ENCRYPTED_DUPLICATION = 1 << 11
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN = 1 << 18


class AttestationType(IntEnum):
    """TPMI_ST_ATTEST: the kinds that Korora reads."""

    QUOTE = 0x8018
    CREATION = 0x801A


@dataclass(frozen=True, slots=True)
class Public:
    """A TPM2B_PUBLIC: key, rights and name. `symmetric` and `scheme` are TPM algorithm numbers."""

    attributes: Attribute
    auth_policy: bytes
    symmetric: int
    scheme: int
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
    name: bytes


@dataclass(frozen=True, slots=True)
class QuoteInfo:
    """TPMS_QUOTE_INFO over the SHA-256 bank."""

    pcrs: tuple[int, ...]
    pcr_digest: bytes


@dataclass(frozen=True, slots=True)
class CreationInfo:
    """TPMS_CREATION_INFO."""

    object_name: bytes
    creation_hash: bytes


@dataclass(frozen=True, slots=True)
class Attestation:
    """A TPMS_ATTEST whose magic says that the TPM itself made it. `clock` is in milliseconds."""

    qualified_signer: bytes
    extra_data: bytes
    clock: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware_version: int
    attested: QuoteInfo | CreationInfo


@dataclass(frozen=True, slots=True)
class CreationData:
    """TPMS_CREATION_DATA: where and under which PCR values an object was made. `digest` names it."""

    pcrs: tuple[int, ...]
    pcr_digest: bytes
    parent_name: bytes
    parent_qualified_name: bytes
    outside_info: bytes
    digest: bytes


def parse_public(data: bytes) -> Public:
    """Read a TPM2B_PUBLIC."""
    outer = _cursor(data, "TPM public area")
    area = outer.sized()
    outer.end()
    cursor = _cursor(area, "TPM public area")
    kind, name_algorithm = cursor.number(2), cursor.number(2)
    if name_algorithm not in _NAME_HASHES:
        cursor.fail(f"is named by hash algorithm {name_algorithm:#06x}")
    attributes, auth_policy = Attribute(cursor.number(4)), cursor.sized()
    symmetric = _symmetric(cursor)
    scheme = _scheme(cursor)
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
    if kind == _RSA:
        key = _rsa_key(cursor)
    elif kind == _ECC:
        key = _ecc_key(cursor)
    else:
        cursor.fail(f"is of type {kind:#06x}, neither RSA nor ECC")
    cursor.end()
    return Public(attributes, auth_policy, symmetric, scheme, key, _name(name_algorithm, area))


def parse_attestation(data: bytes) -> Attestation:
    """Read a TPMS_ATTEST: a quote or a creation certificate."""
    cursor = _cursor(data, "TPM attestation")
    if cursor.number(4) != _GENERATED:
        cursor.fail("does not start with TPM_GENERATED")
    kind = cursor.number(2)
    signer, extra = cursor.sized(), cursor.sized()
    clock, resets, restarts, safe = (cursor.number(size) for size in (8, 4, 4, 1))
    firmware = cursor.number(8)
    attested: QuoteInfo | CreationInfo
    if kind == AttestationType.QUOTE:
        attested = QuoteInfo(_selection(cursor), cursor.sized())
    elif kind == AttestationType.CREATION:
        attested = CreationInfo(cursor.sized(), cursor.sized())
    else:
        cursor.fail(f"is of type {kind:#06x}, neither a quote nor a creation certificate")
    if safe > 1:
        cursor.fail("has a clock that is neither safe nor unsafe")
    cursor.end()
    return Attestation(signer, extra, clock, resets, restarts, bool(safe), firmware, attested)


def parse_creation_data(data: bytes) -> CreationData:
    """Read a TPM2B_CREATION_DATA of an object that is named by SHA-256."""
    outer = _cursor(data, "TPM creation data")
    area = outer.sized()
    outer.end()
    cursor = _cursor(area, "TPM creation data")
    pcrs, digest = _selection(cursor), cursor.sized()
    cursor.take(3)  # locality, name algorithm of the parent (its name says it too)
    parent, qualified, outside = cursor.sized(), cursor.sized(), cursor.sized()
    cursor.end()
    return CreationData(pcrs, digest, parent, qualified, outside, hashlib.sha256(area).digest())


def verify_attestation(quote: Quote, ak: Public) -> Attestation:
    """The attestation, once the AK is seen to have signed it. or IntegrityError(kind="quote-signature")."""
    signature = parse_signature(quote.signature)
    if not isinstance(ak.key, ec.EllipticCurvePublicKey):
        raise _bad_signature("the attestation key is not an ECC key")
    try:
        ak.key.verify(signature, quote.attest, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise _bad_signature("the attestation key did not sign this attestation") from error
    return parse_attestation(quote.attest)


def parse_signature(data: bytes) -> bytes:
    """Read a TPMT_SIGNATURE by ECDSA with SHA-256; returns the signature in DER."""
    cursor = _cursor(data, "TPM signature")
    if (cursor.number(2), cursor.number(2)) != (_ECDSA, _SHA256):
        cursor.fail("is not ECDSA with SHA-256")
    r, s = cursor.sized(), cursor.sized()
    cursor.end()
    if max(len(r), len(s)) > 32:
        cursor.fail("has numbers longer than P-256 has")
    return encode_dss_signature(int.from_bytes(r), int.from_bytes(s))


def qualified_name(hierarchy: int, names: Sequence[bytes]) -> bytes:
    """The qualified name (SHA-256) of the last of these, each the parent of the next (part 1, 16)."""
    qualified = hierarchy.to_bytes(4)
    for name in names:
        qualified = _SHA256.to_bytes(2) + hashlib.sha256(qualified + name).digest()
    return qualified


def _cursor(data: bytes, what: str) -> Cursor:
    if len(data) > MAX_STRUCTURE_BYTES:
        Cursor(b"", what, "malformed-attestation").fail(f"has {len(data)} bytes")
    return Cursor(data, what, "malformed-attestation")


def _name(algorithm: int, area: bytes) -> bytes:
    return algorithm.to_bytes(2) + _NAME_HASHES[algorithm](area).digest()


def _symmetric(cursor: Cursor) -> int:
    algorithm = cursor.number(2)
    if algorithm != _NULL:
        cursor.take(4)  # key bits and mode
    return algorithm


def _scheme(cursor: Cursor) -> int:
    scheme = cursor.number(2)
    if scheme not in {_NULL, _RSAES}:
        cursor.take(4 if scheme == _ECDAA else 2)  # hash algorithm (and count)
    return scheme


def _rsa_key(cursor: Cursor) -> rsa.RSAPublicKey:
    bits, exponent, modulus = cursor.number(2), cursor.number(4), cursor.sized()
    if len(modulus) * 8 != bits or bits not in {2048, 3072, 4096}:
        cursor.fail(f"is an RSA key of {bits} bits with a modulus of {len(modulus)} bytes")
    try:
        return rsa.RSAPublicNumbers(exponent or 65537, int.from_bytes(modulus)).public_key()
    except ValueError:
        cursor.fail("is no RSA key")


def _ecc_key(cursor: Cursor) -> ec.EllipticCurvePublicKey:
    curve = _CURVES.get(cursor.number(2))
    if cursor.number(2) != _NULL:
        cursor.take(2)  # hash of the key derivation scheme
    x, y = cursor.sized(), cursor.sized()
    if curve is None:
        cursor.fail("is on a curve other than P-256 and P-384")
    try:
        return ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curve()).public_key()
    except ValueError:
        cursor.fail("is no point of its curve")


def _selection(cursor: Cursor) -> tuple[int, ...]:
    """TPML_PCR_SELECTION with the SHA-256 bank alone."""
    if (cursor.number(4), cursor.number(2), cursor.number(1)) != (1, _SHA256, 3):
        cursor.fail("does not select PCRs of the SHA-256 bank alone")
    mask = int.from_bytes(cursor.take(3), "little")
    return tuple(pcr for pcr in range(24) if mask >> pcr & 1)


def _bad_signature(message: str) -> IntegrityError:
    return IntegrityError(
        message,
        kind="quote-signature",
        remedy="do not trust that host; enrol it again if its TPM was replaced",
    )
