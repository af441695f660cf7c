"""The impostor's certificate: the host's in every word, but worth nothing."""

from __future__ import annotations

import time

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from korora.authority import create_authority
from korora.lab.demo.impostor import forged


def _host_certificate() -> tuple[x509.Certificate, x509.Certificate]:
    """(certificate of host b, its authority's)."""
    pem, key_pem = create_authority("Korora lab test", time.time())
    authority = x509.load_pem_x509_certificate(pem)
    key = load_pem_private_key(key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "b")]))
        .issuer_name(authority.subject)
        .public_key(ec.generate_private_key(ec.SECP256R1()).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(authority.not_valid_before_utc)
        .not_valid_after(authority.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("b")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, authority


def test_the_copy_says_the_same_and_only_key_and_signature_differ() -> None:
    real, authority = _host_certificate()
    copy = x509.load_pem_x509_certificates(forged(real)[0])[0]
    assert (copy.subject, copy.issuer, copy.serial_number) == (real.subject, real.issuer, real.serial_number)
    assert list(copy.extensions) == list(real.extensions)
    assert copy.public_key() != real.public_key()
    real.verify_directly_issued_by(authority)
    with pytest.raises(InvalidSignature):
        copy.verify_directly_issued_by(authority)
