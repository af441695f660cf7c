"""A machine that pretends to be a host: its certificate in every word, but not its key, nor the site's CA.

Limit: it can only listen and shake hands; no program of Korora's runs there.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from korora.authority import create_authority
from korora.lab.layout import LabHost, Layout

_PORT = 7802
_PATIENCE_S = 10.0


@contextlib.contextmanager
def impostor(
    layout: Layout, host: LabHost, *, inside: Callable[[Callable[[], Any]], Any]
) -> Iterator[tuple[str, int]]:
    """Where the impostor of this host listens, until the block is left."""
    copied = x509.load_pem_x509_certificate((host.state / "identity" / "certificate.pem").read_bytes())
    context = _context(*forged(copied))
    listener: socket.socket = inside(lambda: socket.create_server((layout.switch_ip, _PORT)))
    threading.Thread(target=_serve, args=(listener, context), name="impostor", daemon=True).start()
    try:
        yield listener.getsockname()[:2]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def forged(copied: x509.Certificate) -> tuple[bytes, bytes]:
    """(certificate, key) in PEM: the same names, times and extensions, under a CA of the same name."""
    authority_pem, authority_key_pem = create_authority(_common_name(copied.issuer), time.time())
    authority = x509.load_pem_x509_certificate(authority_pem)
    authority_key = load_pem_private_key(authority_key_pem, None)
    assert isinstance(authority_key, ec.EllipticCurvePrivateKey)  # noqa: S101 create_authority makes these
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(copied.subject)
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(copied.serial_number)
        .not_valid_before(copied.not_valid_before_utc)
        .not_valid_after(copied.not_valid_after_utc)
    )
    for extension in copied.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    certificate = builder.sign(authority_key, hashes.SHA256())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM) + authority_pem, private


def _context(certificate: bytes, key: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with tempfile.TemporaryDirectory(prefix="korora-impostor-") as folder:
        files = Path(folder) / "certificate", Path(folder) / "key"
        for file, content in zip(files, (certificate, key), strict=True):
            file.write_bytes(content)
        context.load_cert_chain(*files)
    return context


def _serve(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Shake hands with whoever comes, and read whatever they say."""
    while True:
        try:
            visitor, _ = listener.accept()
        except OSError:
            return
        visitor.settimeout(_PATIENCE_S)
        with contextlib.suppress(OSError), context.wrap_socket(visitor, server_side=True) as channel:
            while channel.recv(65536):
                pass


def _common_name(name: x509.Name) -> str:
    return str(name.rfc4514_string().removeprefix("CN="))
