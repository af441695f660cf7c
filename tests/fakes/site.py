"""A small certificate authority for tests: host certificates of any kind, good and bad."""

from __future__ import annotations

import datetime as dt

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from korora.adapters.channel.tls import TlsIdentity

NOW = dt.datetime.now(dt.UTC)


class TestSite:
    """One authority and the hosts that it certifies."""

    __test__ = False

    def __init__(self, name: str = "test site") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - dt.timedelta(days=1))
            .not_valid_after(NOW + dt.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def host(
        self,
        name: str,
        *,
        since: dt.timedelta = dt.timedelta(days=-1),
        until: dt.timedelta = dt.timedelta(days=1),
        names: tuple[str, ...] | None = None,
    ) -> TlsIdentity:
        key = ec.generate_private_key(ec.SECP256R1())
        shown = (name,) if names is None else names
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + since)
            .not_valid_after(NOW + until)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
        )
        if shown:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(entry) for entry in shown]), critical=False
            )
        return TlsIdentity(builder.sign(self.key, hashes.SHA256()), key, self.certificate)
