"""Name the session, bind both quotes to it, and agree on the cryptography rule without a downgrade.

Pure: the bytes come from the channel, the exporter's value from the caller (docs/PROTOCOL.md, "Session").
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, TypeVar

from korora.errors import PeerError, RefusedError
from korora.model.identity import SessionId
from korora.model.plan import CryptographyRule
from korora.protocol.messages import VERSION, Hello, Offer

_T = TypeVar("_T")

BINDING_LABEL: Final = "EXPERIMENTAL korora/1 channel binding"
QUOTE_DOMAIN: Final = b"korora/1 quote\x00"
LOCAL_DOMAIN: Final = b"korora/1 attest\x00"
WRAP_DOMAIN: Final = b"korora/1 wrap\x00"
SOURCE: Final = "source"
DESTINATION: Final = "destination"

OFFER: Final = Offer(
    aeads=("AES-256-GCM",),
    digests=("BLAKE3",),
    key_wraps=("TPM2-ECDH-P256-PolicyPCR+HKDF-SHA256+AES-256-GCM",),
    chunk_bytes=(512 * 1024, 256 * 1024, 1024 * 1024, 128 * 1024),
    max_streams=9,
)


@dataclass(frozen=True, slots=True)
class Greeting:
    """Both HELLOs as they stood on the wire, and what follows from them."""

    source: Hello
    destination: Hello
    source_bytes: bytes
    destination_bytes: bytes

    @property
    def session(self) -> SessionId:
        return SessionId((self.source.half + self.destination.half).hex())

    @property
    def session_bytes(self) -> bytes:
        return self.source.half + self.destination.half

    @property
    def digest(self) -> bytes:
        """SHA-256 over the SHA-256 digests of both HELLOs, the source's first (64 bytes in)."""
        both = hashlib.sha256(self.source_bytes).digest() + hashlib.sha256(self.destination_bytes).digest()
        return hashlib.sha256(both).digest()


def greeting(source: Hello, source_bytes: bytes, destination: Hello, destination_bytes: bytes) -> Greeting:
    """Both HELLOs, checked: version, roles, and halves that are not an echo."""
    for hello, role in ((source, SOURCE), (destination, DESTINATION)):
        if hello.version != VERSION:
            raise RefusedError(
                f"host {hello.host} speaks protocol version {hello.version}, this host {VERSION}",
                kind="version",
                remedy="run the same version of Korora on both hosts",
            )
        if hello.role != role:
            raise PeerError(f"host {hello.host} greets as {hello.role!r}, not as {role!r}", kind="wrong-role")
    if source.half == destination.half:
        raise PeerError("the other host echoes this host's random half", kind="echoed-half")
    return Greeting(source, destination, source_bytes, destination_bytes)


def qualifying_data(role: str, greeted: Greeting, binding: bytes) -> bytes:
    """What the host in `role` must quote: 32 bytes that only this channel and these HELLOs give.

    SHA-256(domain ‖ role byte ‖ session (64) ‖ greeting digest (32) ‖ exporter value (32)).
    """
    if len(binding) != 32:
        raise PeerError(f"a channel binding of {len(binding)} bytes, not 32", kind="channel-binding")
    role_byte = {SOURCE: b"\x01", DESTINATION: b"\x02"}[role]
    return hashlib.sha256(
        QUOTE_DOMAIN + role_byte + greeted.session_bytes + greeted.digest + binding
    ).digest()


def local_question(nonce: bytes) -> bytes:
    """What a host quotes for a caller of its own API: never what a session's quote is over.

    SHA-256(domain ‖ nonce); the nonce has 32 bytes.
    """
    return hashlib.sha256(LOCAL_DOMAIN + nonce).digest()


def wrap_nonce(greeted: Greeting) -> bytes:
    """The nonce under which the destination makes and certifies its wrapping key."""
    return hashlib.sha256(WRAP_DOMAIN + greeted.session_bytes).digest()


def choose_rule(greeted: Greeting, *, tls_version: str, tls_group: str, streams: int) -> CryptographyRule:
    """The source's best choice that the destination offers too. RefusedError when nothing is shared."""
    mine, theirs = greeted.source.offer, greeted.destination.offer
    return CryptographyRule(
        tls_version=tls_version,
        tls_group=tls_group,
        aead=_first_shared("AEAD", mine.aeads, theirs.aeads),
        digest=_first_shared("digest", mine.digests, theirs.digests),
        chunk_bytes=_first_shared("chunk size", mine.chunk_bytes, theirs.chunk_bytes),
        streams=max(1, min(streams, mine.max_streams, theirs.max_streams)),
        key_wrap=_first_shared("key wrap", mine.key_wraps, theirs.key_wraps),
    )


def check_rule(rule: CryptographyRule, greeted: Greeting, *, tls_version: str, tls_group: str) -> None:
    """The destination's side: the rule must be exactly what both offers give (no downgrade)."""
    expected = choose_rule(greeted, tls_version=tls_version, tls_group=tls_group, streams=rule.streams)
    if rule != expected:
        raise RefusedError(
            f"the source asks for {rule}, but both offers give {expected}",
            kind="downgrade",
            remedy="the source, or somebody in its place, tries to weaken the session: investigate",
        )


def _first_shared(what: str, mine: tuple[_T, ...], theirs: tuple[_T, ...]) -> _T:
    for choice in mine:
        if choice in theirs:
            return choice
    raise RefusedError(
        f"the hosts share no {what}: {', '.join(map(str, mine))} against {', '.join(map(str, theirs))}",
        kind="no-shared-cryptography",
        remedy="run versions of Korora that share one",
    )
