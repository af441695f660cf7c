"""The host's TLS identity: an ECDSA P-256 key, made once, sealed to the host's TPM under PCRs 0 to 7.

Promise: on disk the private key exists only sealed; it opens only while the host is in the platform state in
which it was made. Limit: while the daemon runs, the key is in its memory (a TPM signs too slowly and too
differently for TLS); after a firmware change the host must be enrolled again.

Files under STATE/identity: `key.sealed`; `certificate.pem` and `enrolment.json`, once enrolled.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from korora.adapters.durable import sync_folder
from korora.errors import IntegrityError, RefusedError
from korora.model.identity import HostName, Secret, sha256
from korora.model.tpm import Credential
from korora.policy.certificates import key_digest, spki
from korora.policy.pcrs import PLATFORM_PCRS
from korora.ports.tpm import Tpm
from korora.protocol.dsse import key_id
from korora.protocol.enrolment import credential_answer

_KEY: Final = "key.sealed"
_CERTIFICATE: Final = "certificate.pem"
_ENROLMENT: Final = "enrolment.json"
_SCALAR_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class TlsKey:
    """The unsealed private key: for TLS as `private`, for DSSE by `key_id` and `sign`."""

    private: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def key_id(self) -> str:
        return key_id(self.private.public_key())

    def sign(self, data: bytes) -> bytes:
        """ECDSA P-256 over SHA-256, DER, deterministic (RFC 6979)."""
        return self.private.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


@dataclass(frozen=True, slots=True)
class Identity:
    """An enrolled host's key with the authority's word for it: certificate (PEM) and enrolment (DSSE)."""

    key: TlsKey
    certificate: x509.Certificate
    enrolment: bytes

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def certificate_der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


@dataclass(frozen=True, slots=True)
class EnrolmentRequest:
    """What `authority.challenge` wants to see of a host: DER, two TPM2B_PUBLIC, PEM."""

    ek_certificate: bytes
    ek_public: bytes
    ak_public: bytes
    csr_pem: bytes


def request_enrolment(tpm: Tpm, directory: Path, host: HostName) -> EnrolmentRequest:
    """Make the key if there is none yet, and ask for a certificate for it. Safe to repeat.

    RefusedError(kind="sealed") when there is a key that this platform state cannot open: `discard` it first.
    """
    key = _key(tpm, directory)
    return EnrolmentRequest(
        tpm.endorsement_certificate(), tpm.endorsement_public(), tpm.attestation_public(), _csr(key, host)
    )


def answer_challenge(tpm: Tpm, directory: Path, credential: Credential) -> bytes:
    """Open the authority's credential in the TPM. ToolError when it is for another TPM or AK."""
    key = _key(tpm, directory)
    return credential_answer(tpm.activate_credential(credential), sha256(spki(key.private.public_key())))


def accept_enrolment(tpm: Tpm, directory: Path, certificate_pem: bytes, enrolment: bytes) -> Identity:
    """Keep what the authority issued. IntegrityError(kind="wrong-certificate") if it is not for this key."""
    key = _key(tpm, directory)
    identity = Identity(key, _certificate_for(key, certificate_pem), enrolment)
    _write(directory / _ENROLMENT, enrolment)
    _write(directory / _CERTIFICATE, certificate_pem)
    return identity


def load_identity(tpm: Tpm, directory: Path) -> Identity:
    """Unseal the key, as the daemon does when it starts.

    RefusedError(kind="not-enrolled") when there is nothing yet; RefusedError(kind="sealed") when the
    platform state, or the TPM, is another one than at enrolment.
    """
    try:
        sealed = (directory / _KEY).read_bytes()
        certificate_pem = (directory / _CERTIFICATE).read_bytes()
        enrolment = (directory / _ENROLMENT).read_bytes()
    except FileNotFoundError as error:
        raise RefusedError(
            "this host is not enrolled with a site authority",
            kind="not-enrolled",
            remedy="enrol it: korora host enroll",
        ) from error
    key = _unsealed(tpm, sealed)
    return Identity(key, _certificate_for(key, certificate_pem), enrolment)


def discard_identity(directory: Path) -> None:
    """Forget key, certificate and enrolment; the host must then be enrolled anew."""
    shutil.rmtree(directory, ignore_errors=True)


def _key(tpm: Tpm, directory: Path) -> TlsKey:
    path = directory / _KEY
    if path.exists():
        return _unsealed(tpm, path.read_bytes())
    private = ec.generate_private_key(ec.SECP256R1())
    scalar = Secret(private.private_numbers().private_value.to_bytes(_SCALAR_BYTES))
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(path, tpm.seal(scalar, PLATFORM_PCRS))
    return TlsKey(private)


def _unsealed(tpm: Tpm, sealed: bytes) -> TlsKey:
    scalar = tpm.unseal(sealed).reveal()
    try:
        return TlsKey(ec.derive_private_key(int.from_bytes(scalar), ec.SECP256R1()))
    except ValueError as error:
        raise IntegrityError(
            "what was sealed as the host's key is no key",
            kind="wrong-certificate",
            remedy="enrol this host again: korora host enroll",
        ) from error


def _csr(key: TlsKey, host: HostName) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key.private, hashes.SHA256())
    return request.public_bytes(Encoding.PEM)


def _certificate_for(key: TlsKey, certificate_pem: bytes) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        theirs = key_digest(certificate)
    except ValueError as error:
        raise _wrong_certificate("cannot be read") from error
    if theirs != sha256(spki(key.private.public_key())):
        raise _wrong_certificate("is for another key")
    return certificate


def _write(path: Path, data: bytes) -> None:
    """All or nothing, also across a crash; readable by root alone."""
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - the descriptor carries the mode
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
    sync_folder(path.parent)


def _wrong_certificate(reason: str) -> IntegrityError:
    return IntegrityError(
        f"the certificate of this host {reason}",
        kind="wrong-certificate",
        remedy="enrol this host again: korora host enroll",
    )
