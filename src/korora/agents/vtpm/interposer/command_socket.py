"""What the daemon and the interposer say to each other: length-prefixed MessagePack, strictly typed.

Promise: a frame is at most 64 KiB and exactly one of the orders or answers below, or it is a PeerError.
Limit: the socket is local. Its protection is the private directory, its mode, and the peer's user id.
"""

from __future__ import annotations

import socket
import struct

import msgspec

from korora.errors import PeerError
from korora.model.identity import Secret

MAX_FRAME = 1 << 16
LENGTH = struct.Struct(">I")


class _Frame(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    pass


class _Keyed(_Frame, frozen=True):
    key: bytes
    vm: str
    session: str
    epoch: int

    def __repr__(self) -> str:
        return f"{type(self).__name__}({Secret(self.key)}, {self.vm}, {self.session}, {self.epoch})"


class SendUnder(_Keyed, frozen=True):
    pass


class AcceptUnder(_Keyed, frozen=True):
    pass


class AcceptBare(_Frame, frozen=True):
    """Let in unencrypted state: the source's vTPM was not in Korora's custody."""


class Stay(_Frame, frozen=True):
    pass


class Retire(_Frame, frozen=True):
    pass


class GetStatus(_Frame, frozen=True):
    pass


class GetPermanent(_Frame, frozen=True):
    """Ask for the digest of the permanent state."""


class Execute(_Frame, frozen=True):
    """Put one read-only TPM command to the vTPM, between two of the guest's."""

    command: bytes


class End(_Frame, frozen=True):
    """Shut swtpm down and exit."""


class Done(_Frame, frozen=True):
    pass


class Response(_Frame, frozen=True):
    response: bytes


class Permanent(_Frame, frozen=True):
    digest: str


class Status(_Frame, frozen=True):
    """`digests`: the blobs that left or entered in the present or last move; `reason`: its first refusal."""

    mode: str
    initialised: bool
    guest_connected: bool
    tpm_alive: bool
    loaded: bool
    digests: dict[str, str]
    reason: str


class Failed(_Frame, frozen=True):
    exit_code: int
    kind: str
    message: str


Orders = SendUnder | AcceptUnder | AcceptBare | Stay | Retire | GetStatus | GetPermanent | Execute | End
Answers = Done | Response | Permanent | Status | Failed

_encoder = msgspec.msgpack.Encoder()
_orders: msgspec.msgpack.Decoder[Orders] = msgspec.msgpack.Decoder(Orders)
_answers: msgspec.msgpack.Decoder[Answers] = msgspec.msgpack.Decoder(Answers)


def encode(frame: Orders | Answers) -> bytes:
    body = _encoder.encode(frame)
    return LENGTH.pack(len(body)) + body


def decode_order(body: bytes) -> Orders:
    try:
        return _orders.decode(body)
    except msgspec.MsgspecError as error:
        raise PeerError("that is not an order", kind="bad-order") from error


def decode_answer(body: bytes) -> Answers:
    try:
        return _answers.decode(body)
    except msgspec.MsgspecError as error:
        raise PeerError("the interposer's answer is not one", kind="bad-answer") from error


def body_length(prefix: bytes) -> int:
    """The length that follows; PeerError when it is empty or too large."""
    (length,) = LENGTH.unpack(prefix)
    if not 0 < length <= MAX_FRAME:
        raise PeerError(f"a frame of {length} bytes was announced", kind="bad-order")
    return int(length)


def peer_user(link: socket.socket) -> int:
    """The user id of the process at the other end (SO_PEERCRED)."""
    credentials = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])
