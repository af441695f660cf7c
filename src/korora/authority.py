"""The site authority: enrols a host, once, and so vouches for its TPM, attestation key and TLS key together.

Promise: nothing is issued before the host has shown that its AK lives in the TPM of the given EK certificate
(MakeCredential/ActivateCredential), and that this certificate is a known manufacturer's. Limit: that the
machine which asks stands where its name says is for the administrator to know. Draws randomness; reads no
clock and no file.

Source: TCG TPM 2.0 part 1, 24 (credential protection); RFC 5280.
"""

from __future__ import annotations

import datetime as dt
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tpm2_pytss.types import TPM2B_PUBLIC
from tpm2_pytss.utils import make_credential

from korora.errors import RefusedError, UsageError
from korora.model.identity import Digest, HostName, Secret, checked_name, sha256
from korora.model.tpm import Credential
from korora.policy.appraisal import check_attestation_key
from korora.policy.attest import Attribute, Public, parse_public
from korora.policy.certificates import checked_endorsement, spki
from korora.protocol.dsse import KeyPair
from korora.protocol.enrolment import Enrolment, credential_answer, signed_enrolment

DEFAULT_LIFETIME: Final = dt.timedelta(days=365)
CHALLENGE_LIFETIME_S: Final = 600

_AUTHORITY_LIFETIME: Final = dt.timedelta(days=3650)
_CLOCK_DIFFERENCE_S: Final = 300  # hosts whose clocks are this far behind accept a new certificate
_EK_ATTRIBUTES: Final = (
    Attribute.FIXED_TPM | Attribute.FIXED_PARENT | Attribute.RESTRICTED | Attribute.DECRYPT
)


@dataclass(frozen=True, slots=True)
class Challenge:
    """What the host must solve (`credential`), what its answer must be, and whom it is about."""

    credential: Credential
    expected: Secret
    host: HostName
    ek_certificate: Digest
    ak_name: bytes
    tls_key: ec.EllipticCurvePublicKey
    made_at: float


@dataclass(frozen=True, slots=True)
class Issued:
    """The TLS certificate and the signed enrolment statement (DSSE)."""

    certificate_pem: bytes
    enrolment: bytes


def create_authority(name: str, now: float) -> tuple[bytes, bytes]:
    """A new authority: (certificate PEM, private key PEM). Keep the key off every host."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    certificate = (
        _builder(subject, subject, key.public_key(), now, _AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM), private


def challenge(
    ek_certificate: bytes,
    ek_public: bytes,
    ak_public: bytes,
    csr_pem: bytes,
    host: str,
    manufacturers: Sequence[x509.Certificate],
    now: float,
) -> Challenge:
    """Check what a host asks for, and make a credential that only its TPM can open for only this AK.

    RefusedError of kind malformed-certificate, unknown-manufacturer, ek-mismatch, ak-mismatch or bad-csr;
    IntegrityError(kind="malformed-attestation") for a malformed public area.
    """
    name = HostName(checked_name(host, "host"))
    certificate = checked_endorsement(ek_certificate, manufacturers, now)
    ek, ak = parse_public(ek_public), parse_public(ak_public)
    _check_endorsement_key(ek, certificate)
    check_attestation_key(ak)
    tls_key = _requested_key(csr_pem, name)
    secret = Secret(secrets.token_bytes(32))
    area, _ = TPM2B_PUBLIC.unmarshal(ek_public)
    blob, encrypted = make_credential(area, secret.reveal(), ak.name)
    expected = Secret(credential_answer(secret, sha256(spki(tls_key))))
    credential = Credential(blob.marshal(), encrypted.marshal())
    return Challenge(credential, expected, name, sha256(ek_certificate), ak.name, tls_key, now)


def issue(
    challenge: Challenge,
    answer: bytes,
    authority_certificate: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    *,
    now: float,
    lifetime: dt.timedelta = DEFAULT_LIFETIME,
) -> Issued:
    """Certificate and enrolment for the host that solved the challenge.

    `answer` is `protocol.enrolment.credential_answer`. RefusedError(kind="not-this-tpm") if it is wrong,
    "expired" if it came too late; UsageError(kind="authority-key") if key and certificate do not match.
    """
    if spki(authority_key.public_key()) != spki(_p256_key(authority_certificate)):
        raise UsageError(
            "the authority's key does not belong to its certificate",
            kind="authority-key",
            remedy="check `authority` and `authority_key` in korora.toml",
        )
    _check_answer(challenge, answer, now)
    until = min(now + lifetime.total_seconds(), authority_certificate.not_valid_after_utc.timestamp())
    certificate = _host_certificate(challenge, authority_certificate, authority_key, now, until)
    enrolment = Enrolment(
        host=challenge.host,
        ek_certificate=challenge.ek_certificate,
        ak_name=challenge.ak_name.hex(),
        tls_key=sha256(spki(challenge.tls_key)),
        issued_at=int(now) - _CLOCK_DIFFERENCE_S,
        not_after=int(until),
    )
    return Issued(certificate.public_bytes(Encoding.PEM), signed_enrolment(enrolment, KeyPair(authority_key)))


def _check_endorsement_key(ek: Public, certificate: x509.Certificate) -> None:
    certified = certificate.public_key()
    if not isinstance(certified, type(ek.key)) or spki(certified) != spki(ek.key):
        raise _refused("ek-mismatch", "the EK certificate is for another key than this TPM's EK")
    if ek.attributes & _EK_ATTRIBUTES != _EK_ATTRIBUTES:
        raise _refused("ek-mismatch", "what the host shows as EK is not a restricted key of a TPM")


def _requested_key(csr_pem: bytes, host: HostName) -> ec.EllipticCurvePublicKey:
    """The public key of the certificate signing request, whose holder signed it for this host's name."""
    try:
        request = x509.load_pem_x509_csr(csr_pem)
        key = request.public_key()
        signed = request.is_signature_valid
    except ValueError as error:
        raise _refused("bad-csr", f"the certificate request cannot be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _refused("bad-csr", "the certificate request is not for a P-256 key")
    if not signed or request.subject != _name(host):
        raise _refused("bad-csr", f"the certificate request was not made by the holder of its key for {host}")
    return key


def _check_answer(challenge: Challenge, answer: bytes, now: float) -> None:
    if not 0 <= now - challenge.made_at <= CHALLENGE_LIFETIME_S:
        raise RefusedError("the answer came too late", kind="expired", remedy="enrol the host again")
    if not hmac.compare_digest(answer, challenge.expected.reveal()):
        raise RefusedError(
            f"{challenge.host} could not open the credential: its attestation key is not in the TPM "
            "whose EK certificate it shows, or its TLS key was exchanged on the way",
            kind="not-this-tpm",
            remedy="enrol it again directly on its console; if it recurs, do not trust it",
        )


def _host_certificate(
    challenge: Challenge,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    now: float,
    until: float,
) -> x509.Certificate:
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    lifetime = dt.timedelta(seconds=until - now)
    subject = _name(challenge.host)
    issuer_key = authority_key.public_key()
    return (
        _builder(subject, authority.subject, challenge.tls_key, now, lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(challenge.host)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: float,
    lifetime: dt.timedelta,
) -> x509.CertificateBuilder:
    moment = dt.datetime.fromtimestamp(int(now), dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - dt.timedelta(seconds=_CLOCK_DIFFERENCE_S))
        .not_valid_after(moment + lifetime)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _p256_key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise UsageError("the authority's certificate is not for a P-256 key", kind="authority-key")
    return key


def _refused(kind: str, message: str) -> RefusedError:
    return RefusedError(
        message,
        kind=kind,
        remedy="check that the request comes from that host's own daemon, then enrol again",
    )
