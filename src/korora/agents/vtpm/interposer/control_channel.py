"""swtpm's control channel as QEMU speaks it: which commands there are and how long each message is.

Promise: a request is read whole or not at all, and an unknown command is never guessed at.
Limit: only the commands that QEMU's `tpm-emulator` backend uses are known (swtpm's tpm_ioctl.h, PTM_*).
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from enum import IntEnum

from korora.errors import PeerError
from korora.protocol.vtpm_blob import MAX_BLOB, BlobType

SUCCESS = 0
FAIL = 0x9  # TPM_FAIL
NO_SUCH_STATE = 0x800  # swtpm's answer for a savestate that is not there (TPM_RETRY)
DECRYPTED = 1  # PTM_STATE_FLAG_DECRYPTED: give the state without swtpm's at-rest encryption
DELETE_VOLATILE = 1  # PTM_INIT_FLAG_DELETE_VOLATILE


class Command(IntEnum):
    GET_CAPABILITY = 1
    INIT = 2
    SHUTDOWN = 3
    GET_TPMESTABLISHED = 4
    SET_LOCALITY = 5
    CANCEL_TPM_CMD = 9
    RESET_TPMESTABLISHED = 11
    GET_STATEBLOB = 12
    SET_STATEBLOB = 13
    STOP = 14
    GET_CONFIG = 15
    SET_DATAFD = 16
    SET_BUFFERSIZE = 17
    LOCK_STORAGE = 19


@dataclass(frozen=True, slots=True)
class Shape:
    """Bytes after the command word in a request, and bytes of a reply (both without a trailing blob)."""

    request: int
    reply: int


SHAPES = {
    Command.GET_CAPABILITY: Shape(0, 8),  # the only reply without a result word
    Command.INIT: Shape(4, 4),
    Command.SHUTDOWN: Shape(0, 4),
    Command.GET_TPMESTABLISHED: Shape(0, 8),
    Command.SET_LOCALITY: Shape(4, 4),
    Command.CANCEL_TPM_CMD: Shape(0, 4),
    Command.RESET_TPMESTABLISHED: Shape(4, 4),
    Command.GET_STATEBLOB: Shape(12, 16),
    Command.SET_STATEBLOB: Shape(12, 4),
    Command.STOP: Shape(0, 4),
    Command.GET_CONFIG: Shape(0, 8),
    Command.SET_DATAFD: Shape(0, 4),
    Command.SET_BUFFERSIZE: Shape(4, 16),
    Command.LOCK_STORAGE: Shape(4, 4),
}


@dataclass(frozen=True, slots=True)
class Request:
    """One whole request; `body` includes the blob of a SET_STATEBLOB. The receiver owns `descriptors`."""

    command: Command
    body: bytes = b""
    descriptors: tuple[int, ...] = ()

    def encoded(self) -> bytes:
        return struct.pack(">I", self.command) + self.body


@dataclass(frozen=True, slots=True)
class StateReply:
    """What GET_STATEBLOB answered: `state` is whole, put together from swtpm's pieces."""

    result: int
    flags: int = 0
    state: bytes = b""

    def encoded(self) -> bytes:
        """In one piece: QEMU insists on total length == length."""
        return struct.pack(">IIII", self.result, self.flags, len(self.state), len(self.state)) + self.state


class OversizedError(PeerError):
    """A SET_STATEBLOB announced more than a blob can have: what follows may be anything."""


def read_request(link: socket.socket) -> Request | None:
    """The next request of the hypervisor, or None when it hung up between two. PeerError on anything else."""
    word, descriptors, _, _ = socket.recv_fds(link, 4, 4)
    try:
        if not word:
            return None
        word += read_exactly(link, 4 - len(word))
        (number,) = struct.unpack(">I", word)
        if number not in SHAPES:
            raise PeerError(f"control command {number:#x} is not known", kind="unknown-command")
        command = Command(number)
        body = read_exactly(link, SHAPES[command].request)
        if command is Command.SET_STATEBLOB:
            body += read_exactly(link, _announced_length(body))
        request = Request(command, body, tuple(descriptors))
    except BaseException:
        close_all(descriptors)
        raise
    return request


def _announced_length(body: bytes) -> int:
    _, kind, length = struct.unpack(">III", body)
    if length > MAX_BLOB:
        raise OversizedError(f"a blob of type {kind} announced {length} bytes", kind="oversized-blob")
    return int(length)


def exchange(tpm: socket.socket, request: Request) -> bytes:
    """Send one fixed-size request to swtpm and return its reply; a failure may be only the result word."""
    encoded = request.encoded()
    if request.descriptors:
        socket.send_fds(tpm, [encoded], list(request.descriptors))
    else:
        tpm.sendall(encoded)
    wanted = SHAPES[request.command].reply
    # swtpm writes each reply at once, and answers some failures with the bare result word.
    reply = tpm.recv(wanted)
    if len(reply) == 4 and request.command is not Command.GET_CAPABILITY and reply != bytes(4):
        return reply
    return reply + (read_exactly(tpm, wanted - len(reply)) if reply else _gone())


def get_state(tpm: socket.socket, kind: BlobType, flags: int = DECRYPTED) -> StateReply:
    """Take a whole state blob out of swtpm, however many pieces it gives."""
    state = b""
    while True:
        body = struct.pack(">III", flags, kind, len(state))
        reply = exchange(tpm, Request(Command.GET_STATEBLOB, body)).ljust(16, b"\0")
        result, reply_flags, total, length = struct.unpack(">IIII", reply)
        if result != SUCCESS:
            return StateReply(result)
        state += read_exactly(tpm, length)
        if length == 0 or len(state) >= total:
            return StateReply(SUCCESS, reply_flags, state)


def set_state(tpm: socket.socket, kind: BlobType, flags: int, state: bytes) -> int:
    """Give swtpm a whole state blob; returns its result word."""
    body = struct.pack(">III", flags, kind, len(state)) + state
    return result_of(exchange(tpm, Request(Command.SET_STATEBLOB, body)))


def result_of(reply: bytes) -> int:
    return int.from_bytes(reply[:4], "big")


def read_exactly(link: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        piece = link.recv(count - len(received))
        if not piece:
            _gone()
        received += piece
    return bytes(received)


def close_all(descriptors: list[int] | tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _gone() -> bytes:
    raise PeerError("the other end of the control channel hung up in the middle of a message", kind="hung-up")
