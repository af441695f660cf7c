"""Check the certificates that a host shows: its EK's, from the TPM's manufacturer, and its TLS key's.

Promise: a certificate comes back only when it was issued by a given anchor, is valid now and is for this
use; otherwise RefusedError says in its kind which of these failed. Limit: no revocation lists.

Source: RFC 5280; TCG EK Credential Profile 2.5, section 3.2 (extensions of EK certificates).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from korora.errors import RefusedError, UsageError
from korora.model.identity import Digest, HostName, sha256

MAX_CERTIFICATE_BYTES: Final = 16 * 1024

_EK_USAGE: Final = x509.ObjectIdentifier("2.23.133.8.1")
_TPM_MANUFACTURER: Final = x509.ObjectIdentifier("2.23.133.2.1")
_TLS_USAGES: Final = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


def parsed(der: bytes, what: str) -> x509.Certificate:
    """RefusedError(kind="malformed-certificate") when it is none."""
    try:
        if len(der) > MAX_CERTIFICATE_BYTES:
            raise ValueError(f"{len(der)} bytes are too many")
        certificate = x509.load_der_x509_certificate(der)
        certificate.extensions  # noqa: B018 - read lazily: a malformed one shows itself here
        certificate.public_key()
    except Exception as error:  # the parser's own errors are many: ValueError, UnsupportedAlgorithm, …
        raise RefusedError(
            f"the {what} certificate cannot be read: {error}",
            kind="malformed-certificate",
            remedy="enrol the host again; if its TPM gives out such a certificate, ask its manufacturer",
        ) from error
    return certificate


def anchors_in(pem: bytes) -> tuple[x509.Certificate, ...]:
    """Every certificate of a PEM file: a chain may stand in one. UsageError(kind="bad-anchor") for none."""
    try:
        certificates = tuple(x509.load_pem_x509_certificates(pem))
        for certificate in certificates:
            certificate.extensions  # noqa: B018 - as in `parsed`
            certificate.public_key()
    except Exception as error:
        raise UsageError(
            f"it holds no certificate in PEM that can be read ({str(error) or type(error).__name__})",
            kind="bad-anchor",
            remedy="correct the file",
        ) from error
    return certificates


def spki(key: PublicKey) -> bytes:
    """SubjectPublicKeyInfo in DER: one spelling for each public key."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_digest(certificate: x509.Certificate) -> Digest:
    """SHA-256 of the certificate's SubjectPublicKeyInfo."""
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return sha256(certificate.public_key().public_bytes(*form))


def checked_endorsement(
    der: bytes, manufacturers: Sequence[x509.Certificate], now: float
) -> x509.Certificate:
    """The EK certificate, once it chains to a manufacturer.

    RefusedError of kind malformed-certificate or unknown-manufacturer. Of `manufacturers`, the self-issued
    ones are anchors and the others intermediates; with no self-issued one, all are anchors.
    """
    certificate = parsed(der, "EK")
    roots = [anchor for anchor in manufacturers if anchor.issuer == anchor.subject] or list(manufacturers)
    intermediates = [anchor for anchor in manufacturers if anchor not in roots]
    try:
        policies = PolicyBuilder().store(Store(roots)).time(_time(now))
        verifier = policies.extension_policies(ca_policy=_CA_POLICY, ee_policy=_EK_POLICY)
        verifier.build_client_verifier().verify(certificate, intermediates)
    except (VerificationError, ValueError) as error:  # ValueError: no manufacturer at all
        raise RefusedError(
            f"the EK certificate, issued by {certificate.issuer.rfc4514_string()!r}, does not chain to a "
            f"known TPM manufacturer: {error}",
            kind="unknown-manufacturer",
            remedy="if that manufacturer is to be trusted, add its root and intermediate certificates to "
            "`manufacturers`; otherwise this may not be a TPM at all",
        ) from error
    return certificate


def checked_host_certificate(
    der: bytes, host: HostName, authority: x509.Certificate, now: float
) -> x509.Certificate:
    """The host's TLS certificate, once the site authority issued it to this host, for now and for this use.

    Kinds: malformed-certificate, unknown-authority, expired, wrong-host, wrong-usage.
    """
    certificate = parsed(der, "TLS")
    _check_issued(certificate, authority)
    _check_valid(certificate, host, now)
    _check_valid(authority, "the site authority", now)
    _check_name(certificate, host)
    if not _TLS_USAGES.issubset(_usages(certificate)):
        raise _refused("wrong-usage", f"the certificate of {host} is not for TLS servers and clients")
    return certificate


def _check_issued(certificate: x509.Certificate, authority: x509.Certificate) -> None:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise RefusedError(
            f"the TLS certificate was issued by {certificate.issuer.rfc4514_string()!r}, "
            f"not by this site's authority {authority.subject.rfc4514_string()!r}",
            kind="unknown-authority",
            remedy="enrol that host with this site's authority, or correct `authority` in the configuration",
        ) from error


def _check_valid(certificate: x509.Certificate, whose: str, now: float) -> None:
    moment = _time(now).replace(tzinfo=dt.UTC)
    if not certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc:
        raise RefusedError(
            f"the certificate of {whose} is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, and it is {moment:%Y-%m-%d %H:%M}",
            kind="expired",
            remedy="check both clocks; if they are right, enrol the host again",
        )


def _check_name(certificate: x509.Certificate, host: HostName) -> None:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        shown = names.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        shown = []
    if shown != [host]:
        raise RefusedError(
            f"the certificate is for {', '.join(shown) or 'no host'}, not for {host}",
            kind="wrong-host",
            remedy="check the address of that host in the configuration: another host answers there",
        )


def _usages(certificate: x509.Certificate) -> set[x509.ObjectIdentifier]:
    try:
        return set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return set()


def _time(now: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(now, dt.UTC).replace(tzinfo=None)


def _is_ek_usage(_: Policy, __: x509.Certificate, usages: x509.ExtendedKeyUsage) -> None:
    if _EK_USAGE not in usages:
        raise ValueError("it is not for an endorsement key")


def _names_a_tpm(_: Policy, __: x509.Certificate, names: x509.SubjectAlternativeName) -> None:
    directory = names.get_values_for_type(x509.DirectoryName)
    if not any(name.get_attributes_for_oid(_TPM_MANUFACTURER) for name in directory):
        raise ValueError("it does not name the maker of a TPM")


def _is_authority(_: Policy, __: x509.Certificate, constraints: x509.BasicConstraints) -> None:
    if not constraints.ca:
        raise ValueError("an issuer in its chain is no authority")


def _refused(kind: str, message: str) -> RefusedError:
    return RefusedError(message, kind=kind, remedy="enrol the host again with this site's authority")


# EK certificates are not those of the web: the name is a TPM's, often critical, and there is no host name.
_EK_POLICY: Final = (
    ExtensionPolicy.permit_all()
    .require_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _is_ek_usage)
    .require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, _names_a_tpm)
)
_CA_POLICY: Final = ExtensionPolicy.permit_all().require_present(
    x509.BasicConstraints, Criticality.AGNOSTIC, _is_authority
)
