"""The data plane's wire format: preamble, frames, keys, nonces and running roots (docs/protocol/frames.md).

Promise: a frame of another session, connection, direction or position never opens, the end of a stream is
authenticated like its bytes, and a parser here checks every byte it is given.
Limit: pure functions and small states; who reads and writes sockets is `agents.dataplane`. Lengths, times and
the number of frames stay visible to whoever watches the wire; contents and their digests do not.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

from blake3 import blake3
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from korora.errors import IntegrityError, PeerError
from korora.model.evidence import StreamRoot
from korora.model.identity import Digest, Secret, SessionId

# The first byte is neither TLS (0x16) nor text, so that one port can serve both; the last is the version.
PREAMBLE_MAGIC: Final = b"\xc7KORORA\x01"
TICKET_BYTES: Final = 32
PREAMBLE_BYTES: Final = len(PREAMBLE_MAGIC) + TICKET_BYTES

HEADER: Final = struct.Struct(">IIQ")  # kind, payload bytes, sequence number
HEADER_BYTES: Final = HEADER.size
DIGEST_BYTES: Final = 32
TAG_BYTES: Final = 16
OVERHEAD_BYTES: Final = HEADER_BYTES + DIGEST_BYTES + TAG_BYTES
TOTALS: Final = struct.Struct(">QQ")  # payload of END: data frames, payload bytes

MIN_CHUNK_BYTES: Final = 4096
MAX_CHUNK_BYTES: Final = 1 << 20
MAX_STREAMS: Final = 256
FRAMES_PER_KEY: Final = 4096  # at most 4 GiB under one key: far inside AES-GCM's bound (RFC 8446, 5.5)

EXPORT_LABEL: Final = "EXPERIMENTAL korora/1 data"
_RATCHET_INFO: Final = b"korora/1 data rekey"
_ROOT_CONTEXT: Final = "korora/1 data stream root"
NETWORK_REMEDY: Final = (
    "the VM runs on at the source; find what changes traffic between the two hosts, then try again"
)


class Direction(StrEnum):
    """The words of StreamRoot.direction. Forward runs from source to destination."""

    FORWARD = "forward"
    RETURN = "return"


class Kind(IntEnum):
    DATA = 1
    ALIVE = 2  # says only that the sender lives and waits for its hypervisor
    END = 3  # the last frame of its direction; carries root and totals


class Purpose(IntEnum):
    """What an exported value is for; one byte of the exporter's context."""

    TICKET = 0
    FORWARD = 1
    RETURN = 2


@dataclass(frozen=True, slots=True)
class StreamKeys:
    """The secrets of one data connection. `ticket` is shown on the wire once; the keys never are."""

    stream: int
    ticket: bytes
    forward: Secret
    backward: Secret

    def key(self, direction: Direction) -> Secret:
        return self.forward if direction is Direction.FORWARD else self.backward


@dataclass(frozen=True, slots=True)
class Header:
    """A checked header: `payload_bytes` fits its kind and the agreed chunk."""

    kind: Kind
    payload_bytes: int

    @property
    def body_bytes(self) -> int:
        """What follows the header on the wire."""
        return DIGEST_BYTES + self.payload_bytes + TAG_BYTES


@dataclass(frozen=True, slots=True)
class Totals:
    frames: int
    payload_bytes: int


def stream_keys(export: Callable[[str, bytes, int], Secret], session: SessionId, stream: int) -> StreamKeys:
    """Ticket and keys of one data connection, by the TLS exporter of the control channel (RFC 8446, 7.5).

    Both hosts compute the same values; nobody outside that TLS session can.
    """
    if not 0 <= stream < MAX_STREAMS:
        raise ValueError(f"stream {stream} is outside 0 to {MAX_STREAMS - 1}")

    def exported(purpose: Purpose) -> Secret:
        return export(EXPORT_LABEL, export_context(session, stream, purpose), 32)

    return StreamKeys(
        stream=stream,
        ticket=exported(Purpose.TICKET).reveal(),
        forward=exported(Purpose.FORWARD),
        backward=exported(Purpose.RETURN),
    )


def export_context(session: SessionId, stream: int, purpose: Purpose) -> bytes:
    """64 bytes of session, 4 of stream, 1 of purpose."""
    named = bytes.fromhex(session)
    if len(named) != 64:
        raise ValueError(f"a session is named by 64 bytes, not {len(named)}")
    return named + struct.pack(">IB", stream, purpose)


def preamble(ticket: bytes) -> bytes:
    """What the source writes first on a data connection."""
    if len(ticket) != TICKET_BYTES:
        raise ValueError(f"a ticket has {TICKET_BYTES} bytes, not {len(ticket)}")
    return PREAMBLE_MAGIC + ticket


def parse_preamble(data: bytes) -> bytes:
    """The ticket in a preamble of exactly PREAMBLE_BYTES. PeerError on any other bytes."""
    if len(data) != PREAMBLE_BYTES or not data.startswith(PREAMBLE_MAGIC):
        raise PeerError(
            "a connection opened with bytes that are no data-plane preamble",
            kind="bad-preamble",
            remedy="see that both hosts run the same version of Korora and that nothing else uses this port",
        )
    return data[len(PREAMBLE_MAGIC) :]


def same_ticket(one: bytes, other: bytes) -> bool:
    return hmac.compare_digest(one, other)


def parse_header(data: bytes | bytearray | memoryview, *, sequence: int, chunk_bytes: int) -> Header:
    """Check all sixteen bytes against what may come now. IntegrityError on any that may not.

    The header is not authenticated yet: it only says how many bytes to read, at most one chunk's worth.
    """
    if len(data) != HEADER_BYTES:
        raise IntegrityError(f"a header of {len(data)} bytes", kind="frame-malformed", remedy=NETWORK_REMEDY)
    kind, payload_bytes, found = HEADER.unpack(data)
    if kind not in _PAYLOAD_RANGE:
        raise IntegrityError(f"a frame of unknown kind {kind}", kind="frame-malformed", remedy=NETWORK_REMEDY)
    if found != sequence:
        raise IntegrityError(
            f"frame {found} came where frame {sequence} was due",
            kind="frame-out-of-order",
            remedy=NETWORK_REMEDY,
        )
    least, most = _PAYLOAD_RANGE[kind]
    if not least <= payload_bytes <= (chunk_bytes if most is None else most):
        raise IntegrityError(
            f"a frame of kind {kind} announces {payload_bytes} bytes",
            kind="frame-malformed",
            remedy=NETWORK_REMEDY,
        )
    return Header(Kind(kind), payload_bytes)


# Kind → least and most payload; None is the agreed chunk.
_PAYLOAD_RANGE: Final[dict[int, tuple[int, int | None]]] = {
    Kind.DATA: (1, None),
    Kind.ALIVE: (0, 0),
    Kind.END: (TOTALS.size, TOTALS.size),
}


def parse_totals(payload: bytes | bytearray | memoryview) -> Totals:
    frames, payload_bytes = TOTALS.unpack(payload)
    return Totals(frames, payload_bytes)


def nonce(sequence: int) -> bytes:
    """Unique under a key because the sequence never restarts (RFC 5116, 3.2)."""
    return sequence.to_bytes(12, "big")


class KeyRatchet:
    """The AEAD of each frame in turn: every FRAMES_PER_KEY frames the key is replaced by one derived from it.

    A key that was replaced cannot be computed from its successors (HKDF-Expand, RFC 5869).
    """

    def __init__(self, key: Secret) -> None:
        self._key = key.reveal()
        self._cipher = AESGCM(self._key)

    def cipher(self, sequence: int) -> AESGCM:
        """To be asked once for each sequence number, in order from 0."""
        if sequence % FRAMES_PER_KEY == 0 and sequence:
            self._key = HKDFExpand(hashes.SHA256(), 32, _RATCHET_INFO).derive(self._key)
            self._cipher = AESGCM(self._key)
        return self._cipher


class RunningRoot:
    """What one direction of one stream has carried: lengths and digests of its data, in order."""

    def __init__(self, keys: StreamKeys, direction: Direction) -> None:
        self.frames = 0
        self.payload_bytes = 0
        self._stream = keys.stream
        self._direction = direction
        self._hash = blake3(derive_key_context=_ROOT_CONTEXT)
        self._hash.update(keys.ticket + struct.pack(">I", keys.stream) + direction.value.encode())

    def add(self, payload_bytes: int, digest: bytes) -> None:
        self.frames += 1
        self.payload_bytes += payload_bytes
        self._hash.update(payload_bytes.to_bytes(4, "big") + digest)

    def digest(self) -> bytes:
        return self._hash.digest()

    def totals(self) -> bytes:
        return TOTALS.pack(self.frames, self.payload_bytes)

    def evidence(self) -> StreamRoot:
        return StreamRoot(
            stream=self._stream,
            direction=self._direction.value,
            frames=self.frames,
            bytes=self.payload_bytes,
            root=Digest("blake3:" + self._hash.hexdigest()),
        )
