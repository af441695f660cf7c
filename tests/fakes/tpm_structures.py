"""TPM structures made by hand, so that a test can make every one of them wrong."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from korora.model.evidence import PcrValues, Quote
from korora.model.tpm import WrappingKey
from korora.policy.appraisal import AK_ATTRIBUTES
from korora.policy.attest import qualified_name
from korora.policy.pcrs import pcr_digest, policy_pcr, selection_bytes
from korora.protocol.key_wrap import ATTRIBUTES

NULL_HIERARCHY = 0x40000007
OWNER_HIERARCHY = 0x40000001
PARENT_NAME = b"\0\x0b" + bytes(32)
PCRS: PcrValues = {pcr: hashlib.sha256(bytes([pcr])).hexdigest() for pcr in range(8)}


def private_key(number: int) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(number, ec.SECP256R1())


def sized(data: bytes) -> bytes:
    return len(data).to_bytes(2) + data


def ecc_public(
    key: ec.EllipticCurvePublicKey,
    attributes: int,
    policy: bytes = b"",
    scheme: bytes = b"\0\x10",
    symmetric: bytes = b"\0\x10",
) -> bytes:
    """TPM2B_PUBLIC of a P-256 key with a SHA-256 name."""
    numbers = key.public_numbers()
    head = b"\0\x23" + b"\0\x0b" + int(attributes).to_bytes(4) + sized(policy)
    parameters = symmetric + scheme + b"\0\x03" + b"\0\x10"
    return sized(head + parameters + sized(numbers.x.to_bytes(32)) + sized(numbers.y.to_bytes(32)))


def name_of(public: bytes) -> bytes:
    return b"\0\x0b" + hashlib.sha256(public[2:]).digest()


@dataclass(frozen=True)
class SoftwareAk:
    """An attestation key whose private half the test holds, as no TPM would allow."""

    private: ec.EllipticCurvePrivateKey = field(default_factory=lambda: private_key(1))

    @property
    def public(self) -> bytes:
        return ecc_public(self.private.public_key(), AK_ATTRIBUTES, scheme=b"\0\x18\0\x0b")

    def attest(self, kind: int, extra: bytes, attested: bytes, magic: int = 0xFF544347) -> Quote:
        """TPMS_ATTEST and TPMT_SIGNATURE; both deterministic."""
        clock = (1000).to_bytes(8) + (2).to_bytes(4) + (3).to_bytes(4) + b"\1"
        head = magic.to_bytes(4) + kind.to_bytes(2) + sized(name_of(self.public)) + sized(extra)
        body = head + clock + (7).to_bytes(8) + attested
        der = self.private.sign(body, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        r, s = decode_dss_signature(der)
        return Quote(body, b"\0\x18\0\x0b" + sized(r.to_bytes(32)) + sized(s.to_bytes(32)))

    def quote(self, pcrs: PcrValues, extra: bytes) -> Quote:
        return self.attest(0x8018, extra, selection_bytes(pcrs) + sized(pcr_digest(pcrs)))


@dataclass(frozen=True)
class MadeByHand:
    """Everything about a wrapping key; as it stands it is a good one."""

    nonce: bytes = bytes(range(32))
    pcrs: PcrValues = field(default_factory=lambda: dict(PCRS))
    private: ec.EllipticCurvePrivateKey = field(default_factory=lambda: private_key(2))
    ak: SoftwareAk = field(default_factory=SoftwareAk)
    attributes: int = ATTRIBUTES
    scheme: bytes = b"\0\x10"
    symmetric: bytes = b"\0\x10"
    hierarchy: int = NULL_HIERARCHY
    policy_pcrs: PcrValues | None = None
    creation_pcrs: PcrValues | None = None
    outside_info: bytes | None = None
    certified_nonce: bytes | None = None
    certified_name: bytes | None = None
    certified_hash: bytes | None = None
    kind: int = 0x801A
    magic: int = 0xFF544347

    @property
    def public(self) -> bytes:
        policy = policy_pcr(self.pcrs if self.policy_pcrs is None else self.policy_pcrs)
        key = self.private.public_key()
        return ecc_public(key, self.attributes, policy, self.scheme, self.symmetric)

    @property
    def creation_data(self) -> bytes:
        pcrs = self.pcrs if self.creation_pcrs is None else self.creation_pcrs
        outside = self.nonce if self.outside_info is None else self.outside_info
        qualified = qualified_name(self.hierarchy, [PARENT_NAME])
        where = b"\1" + b"\0\x0b" + sized(PARENT_NAME) + sized(qualified)
        return sized(selection_bytes(pcrs) + sized(pcr_digest(pcrs)) + where + sized(outside))

    @property
    def key(self) -> WrappingKey:
        name = self.certified_name or name_of(self.public)
        digest = self.certified_hash or hashlib.sha256(self.creation_data[2:]).digest()
        extra = self.nonce if self.certified_nonce is None else self.certified_nonce
        certificate = self.ak.attest(self.kind, extra, sized(name) + sized(digest), self.magic)
        return WrappingKey(self.public, self.creation_data, certificate)
