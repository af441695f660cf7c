"""The control channel: TLS 1.3 with both certificates, by OpenSSL, on asyncio streams.

Promises: the peer's certificate chains to the site authority and is valid now; messages arrive whole and
in order, or not at all. Does not decide whether the peer is trusted: that is attestation's part.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

from korora.errors import KororaError, PeerError, RefusedError
from korora.model.identity import HostName, Secret
from korora.protocol.messages import MAX_MESSAGE_BYTES

_LENGTH: Final = struct.Struct(">I")
SEND_DEADLINE_S: Final = 20.0
_READ_BYTES: Final = 64 * 1024
_EXPIRED: Final = {9, 10}  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """This host's certificate and key, and the authority that peers must show."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    authority: x509.Certificate


class _Verification:
    """Collects why OpenSSL turned a certificate down, since its own error says too little."""

    def __init__(self) -> None:
        self.errno = 0

    def __call__(
        self, _connection: SSL.Connection, _certificate: crypto.X509, errno: int, _depth: int, ok: int
    ) -> bool:
        if not ok and not self.errno:
            self.errno = errno
        return bool(ok)


def _context(identity: TlsIdentity, verification: _Verification) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(SSL.OP_NO_TICKET)  # every session is attested afresh
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.use_certificate(identity.certificate)
    context.use_privatekey(identity.key)
    store = context.get_cert_store()
    assert store is not None  # noqa: S101 a new context always has one
    store.add_cert(crypto.X509.from_cryptography(identity.authority))
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verification)
    return context


class TlsChannel:
    """One channel. Made by `connect` or `accept`; implements ports.channel.Channel."""

    def __init__(
        self, connection: SSL.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._tls = connection
        self._reader = reader
        self._writer = writer
        self._received = bytearray()
        self._peer = HostName("")
        self._peer_certificate = b""
        self._own_certificate = b""

    @property
    def peer(self) -> HostName:
        return self._peer

    @property
    def peer_certificate(self) -> bytes:
        return self._peer_certificate

    @property
    def own_certificate(self) -> bytes:
        return self._own_certificate

    @property
    def tls_version(self) -> str:
        return self._tls.get_protocol_version_name()

    @property
    def tls_group(self) -> str:
        return self._tls.get_group_name() or "unknown"

    def export_key(self, label: str, context: bytes, length: int = 32) -> Secret:
        return Secret(self._tls.export_keying_material(label.encode(), length, context))

    async def send(self, message: bytes) -> None:
        """Queue one whole message and wait until the transport takes it.

        PeerError(kind="silent") when that takes too long: a guest may be paused meanwhile.
        """
        try:
            async with asyncio.timeout(SEND_DEADLINE_S):
                self._tls.sendall(_LENGTH.pack(len(message)) + message)
                await self._flush()
        except TimeoutError as error:
            raise PeerError(
                f"host {self._peer} took nothing for {SEND_DEADLINE_S:g} s",
                kind="silent",
                remedy=f"check the daemon on {self._peer} and the network between the hosts",
            ) from error
        except (SSL.Error, OSError) as error:
            raise _gone(self._peer, error) from error

    async def receive(self, deadline_s: float | None = None) -> bytes:
        """The next whole message; PeerError(kind="silent") after `deadline_s` without one."""
        try:
            async with asyncio.timeout(deadline_s):
                return await self._whole_message()
        except TimeoutError as error:
            raise PeerError(
                f"host {self._peer} said nothing for {deadline_s:.0f} s",
                kind="silent",
                remedy=f"check the daemon on {self._peer} and the network between the hosts",
            ) from error

    async def close(self) -> None:
        try:
            self._tls.shutdown()
            await asyncio.wait_for(self._flush(), 2)
        except (SSL.Error, OSError, TimeoutError):
            pass  # the peer may be gone already; a message is only believed whole, so nothing is lost by it
        self._writer.close()

    async def handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
                await self._flush()
                return
            except SSL.WantReadError:
                await self._flush()
                await self._feed()
            except SSL.Error:
                await self._flush()  # the alert tells the other side why
                raise

    def learn_peer(self) -> None:
        certificate = self._tls.get_peer_certificate(as_cryptography=True)
        own = self._tls.get_certificate(as_cryptography=True)
        if certificate is None or own is None:
            raise PeerError("the other host showed no certificate", kind="no-certificate")
        self._peer_certificate = certificate.public_bytes(Encoding.DER)
        self._own_certificate = own.public_bytes(Encoding.DER)
        self._peer = HostName(_name_in(certificate))

    async def _whole_message(self) -> bytes:
        # Nothing is taken from the buffer before the message is whole: any await may be cancelled.
        await self._hold(_LENGTH.size)
        (length,) = _LENGTH.unpack_from(self._received)
        if length > MAX_MESSAGE_BYTES:
            raise PeerError(
                f"host {self._peer} announces a message of {length} bytes", kind="malformed-message"
            )
        end = _LENGTH.size + length
        await self._hold(end)
        message = bytes(self._received[_LENGTH.size : end])
        del self._received[:end]
        return message

    async def _hold(self, length: int) -> None:
        while len(self._received) < length:
            try:
                self._received += self._tls.recv(_READ_BYTES)
            except SSL.WantReadError:
                await self._feed()
            except (SSL.Error, OSError) as error:
                raise _gone(self._peer, error) from error

    async def _feed(self) -> None:
        try:
            data = await self._reader.read(_READ_BYTES)
        except OSError as error:
            raise _gone(self._peer, error) from error
        if not data:
            raise _gone(self._peer, None)
        self._tls.bio_write(data)

    async def _flush(self) -> None:
        while True:
            try:
                self._writer.write(self._tls.bio_read(_READ_BYTES))
            except SSL.WantReadError:
                break
        await self._writer.drain()


async def connect(
    address: str, expected: HostName, identity: TlsIdentity, *, deadline_s: float = 15.0
) -> TlsChannel:
    """Open a channel to the host of this name. RefusedError when another host answers at its address."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(deadline_s):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, ValueError, TimeoutError) as error:
        raise PeerError(
            f"host {expected} does not answer at {address}: {str(error) or 'no answer in time'}",
            kind="unreachable",
            remedy=f"is `korora hostd` running on {expected}, and is the address right in the configuration?",
        ) from error
    who = f"{expected} at {address}"
    channel = await _secure(reader, writer, identity, b"", who, deadline_s, client=True)
    if channel.peer != expected:
        found = channel.peer
        await channel.close()
        raise RefusedError(
            f"the host at {address} is {found!r} by its certificate, not {expected!r}",
            kind="wrong-host",
            remedy="the address is wrong, or somebody answers in its place: nothing was sent to it",
        )
    return channel


async def accept(
    connection: socket.socket, first: bytes, identity: TlsIdentity, *, deadline_s: float = 15.0
) -> TlsChannel:
    """Take the server's side on an accepted socket of which `first` was already read."""
    peer = str(connection.getpeername()[0])
    reader, writer = await asyncio.open_connection(sock=connection)
    return await _secure(reader, writer, identity, first, peer, deadline_s, client=False)


async def _secure(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    identity: TlsIdentity,
    first: bytes,
    who: str,
    deadline_s: float,
    *,
    client: bool,
) -> TlsChannel:
    tcp = writer.get_extra_info("socket")
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    verification = _Verification()
    connection = SSL.Connection(_context(identity, verification), None)
    if client:
        connection.set_connect_state()
    else:
        connection.set_accept_state()
    if first:
        connection.bio_write(first)
    channel = TlsChannel(connection, reader, writer)
    try:
        async with asyncio.timeout(deadline_s):
            await channel.handshake()
        channel.learn_peer()
    except (SSL.Error, OSError, TimeoutError, KororaError) as error:
        writer.close()
        raise _unsecured(who, verification.errno, error) from error
    return channel


def _unsecured(who: str, errno: int, error: Exception) -> KororaError:
    if errno in _EXPIRED:
        return RefusedError(
            f"the certificate of {who} is expired or not yet valid",
            kind="expired",
            remedy="enrol that host again (`korora host enroll`), and compare the clocks of both hosts",
        )
    if errno:
        return RefusedError(
            f"the certificate of {who} was not issued by this site's authority ({_reason(errno)})",
            kind="unknown-authority",
            remedy="enrol that host with this site's authority, or correct [site] authority",
        )
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, TimeoutError):
        return PeerError(f"{who} did not finish the TLS handshake in time", kind="silent")
    return PeerError(
        f"no secure channel with {who}: {_words(error)}",
        kind="handshake",
        remedy="is that port Korora's, and are both hosts enrolled at the same site?",
    )


def _reason(errno: int) -> str:
    issuer = "its issuer is not the authority"
    return {18: "it is self-signed", 19: issuer, 20: issuer, 21: issuer, 7: "its signature is wrong"}.get(
        errno, f"X.509 verification error {errno}"
    )


def _gone(peer: str, error: Exception | None) -> PeerError:
    if isinstance(error, SSL.Error) and "certificate" in _words(error):
        return PeerError(
            f"host {peer or 'at the other end'} did not accept this host's certificate: {_words(error)}",
            kind="certificate-rejected",
            remedy="enrol this host again, and compare the clocks of both hosts",
        )
    why = f": {_words(error)}" if error is not None else ""
    return PeerError(
        f"host {peer or 'at the other end'} closed the connection{why}",
        kind="peer-gone",
        remedy="see the daemon's log on that host",
    )


def _words(error: Exception) -> str:
    if isinstance(error, SSL.Error) and error.args and isinstance(error.args[0], list):
        return ", ".join(str(entry[-1]) for entry in error.args[0]) or "connection lost"
    return str(error) or type(error).__name__


def _name_in(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = names.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        found = []
    if len(found) != 1:
        raise RefusedError(
            "the other host's certificate does not name exactly one host",
            kind="wrong-host",
            remedy="enrol that host again (`korora host enroll`)",
        )
    return found[0]
