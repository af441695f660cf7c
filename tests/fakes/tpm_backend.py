"""QEMU's `tpm-emulator` backend, as far as a vTPM sees it: the same control messages in the same order."""

from __future__ import annotations

import hashlib
import socket
import struct
import time
from pathlib import Path
from types import TracebackType

PERMANENT, VOLATILE, SAVESTATE = 1, 2, 3
TYPES = (PERMANENT, VOLATILE, SAVESTATE)
FAILED = 0x9
_TIMEOUT_S = 30

Blob = tuple[int, bytes]  # state flags and bytes, as QEMU carries them in its stream


class TpmBackend:
    """The hypervisor's side of one vTPM, and the guest behind it."""

    def __init__(self, path: Path) -> None:
        self.control = socket.socket(socket.AF_UNIX)
        self.control.settimeout(_TIMEOUT_S)
        self.control.connect(str(path))
        self.data, self._theirs = socket.socketpair()
        self.data.settimeout(_TIMEOUT_S)

    def __enter__(self) -> TpmBackend:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hang_up()

    def hang_up(self) -> None:
        self.control.close()
        self.data.close()
        self._theirs.close()

    # -- the hypervisor ---------------------------------------------------------------------------------

    def connect_data(self) -> int:
        socket.send_fds(self.control, [struct.pack(">I", 16)], [self._theirs.fileno()])
        result = self._word()
        self._theirs.close()
        return result

    def prepare(self) -> None:
        """What QEMU does with `-incoming`: everything but INIT."""
        assert self.connect_data() == 0
        self._send(1)
        self.exactly(self.control, 8)
        self.stop()
        self.set_buffer_size(4096)

    def start(self) -> int:
        self.prepare()
        return self.initialise(0)

    def reset(self) -> int:
        self.stop()
        self.set_buffer_size(4096)
        return self.initialise(0)

    def stop(self) -> int:
        self._send(14)
        return self._word()

    def set_buffer_size(self, size: int) -> int:
        self._send(17, struct.pack(">I", size))
        result: int = struct.unpack(">IIII", self.exactly(self.control, 16))[0]
        return result

    def initialise(self, flags: int) -> int:
        self._send(2, struct.pack(">I", flags))
        return self._word()

    def quit(self) -> None:
        self._send(3)
        self._word()
        self.hang_up()

    def get_blob(self, kind: int, offset: int = 0) -> tuple[int, Blob]:
        self._send(12, struct.pack(">III", 1, kind, offset))
        result, flags, total, length = struct.unpack(">IIII", self.exactly(self.control, 16))
        assert total == length, "QEMU insists on one piece"
        return result, (flags, self.exactly(self.control, length))

    def set_blob(self, kind: int, flags: int, blob: bytes) -> int:
        self._send(13, struct.pack(">III", flags, kind, len(blob)) + blob)
        return self._word()

    def save(self) -> dict[int, Blob]:
        """What QEMU does after `migrate-continue`. Fails as QEMU would."""
        saved = {}
        for kind in TYPES:
            result, saved[kind] = self.get_blob(kind)
            assert result == 0, f"blob {kind}: {result:#x}"
        return saved

    def load(self, blobs: dict[int, Blob]) -> list[int]:
        """What QEMU does when the state arrives; the results of STOP, SET_STATEBLOB × n and INIT."""
        results = [self.stop()]
        results += [self.set_blob(kind, flags, blob) for kind, (flags, blob) in blobs.items()]
        self.stop()
        self.set_buffer_size(4096)
        return [*results, self.initialise(1)]

    # -- the guest --------------------------------------------------------------------------------------

    def command(self, command: bytes) -> bytes:
        self.data.sendall(command)
        header = self.exactly(self.data, 10)
        return header + self.exactly(self.data, int.from_bytes(header[2:6], "big") - 10)

    def send_raw(self, command: int, body: bytes = b"") -> None:
        self._send(command, body)

    def _send(self, command: int, body: bytes = b"") -> None:
        self.control.sendall(struct.pack(">I", command) + body)

    def _word(self) -> int:
        return int.from_bytes(self.exactly(self.control, 4), "big")

    @staticmethod
    def exactly(link: socket.socket, count: int) -> bytes:
        received = b""
        while len(received) < count:
            piece = link.recv(count - len(received))
            if not piece:
                raise EOFError("hung up")
            received += piece
        return received


def asked(backend: TpmBackend, command: bytes) -> bytes:
    """As a guest's driver does: again, while the TPM says TPM_RC_RETRY."""
    for _ in range(100):
        response = backend.command(command)
        if code_of(response) != 0x922:
            break
        time.sleep(0.01)
    return response


def code_of(response: bytes) -> int:
    return int.from_bytes(response[6:10], "big")


def startup() -> bytes:
    return bytes.fromhex("80010000000c000001440000")


def pcr_extend(pcr: int, what: bytes) -> bytes:
    session = struct.pack(">IIHBH", 9, 0x40000009, 0, 0, 0)
    body = struct.pack(">I", pcr) + session + struct.pack(">IH", 1, 0x000B) + hashlib.sha256(what).digest()
    return struct.pack(">HII", 0x8002, 10 + len(body), 0x182) + body


def nv_define(index: int, size: int) -> bytes:
    """By the owner, with an empty password; OWNERREAD|OWNERWRITE|AUTHREAD|AUTHWRITE."""
    session = struct.pack(">IIHBH", 9, 0x40000009, 0, 0, 0)
    public = struct.pack(">IHIHH", index, 0x000B, 0x00060006, 0, size)
    body = struct.pack(">I", 0x40000001) + session + struct.pack(">H", 0)
    body += struct.pack(">H", len(public)) + public
    return struct.pack(">HII", 0x8002, 10 + len(body), 0x12A) + body


def nv_write(index: int, data: bytes) -> bytes:
    session = struct.pack(">IIHBH", 9, 0x40000009, 0, 0, 0)
    body = struct.pack(">II", index, index) + session + struct.pack(">H", len(data)) + data
    body += struct.pack(">H", 0)
    return struct.pack(">HII", 0x8002, 10 + len(body), 0x137) + body


def nv_read(index: int, size: int) -> bytes:
    session = struct.pack(">IIHBH", 9, 0x40000009, 0, 0, 0)
    body = struct.pack(">II", index, index) + session + struct.pack(">HH", size, 0)
    return struct.pack(">HII", 0x8002, 10 + len(body), 0x14E) + body


def make_rsa_key() -> bytes:
    """TPM2_CreatePrimary of an RSA-2048 storage key in the NULL hierarchy: takes the TPM a while."""
    session = struct.pack(">IIHBH", 9, 0x40000009, 0, 0, 0)
    public = struct.pack(">HHIH", 0x0001, 0x000B, 0x00030072, 0)
    public += struct.pack(">HHH", 0x0006, 128, 0x0043) + struct.pack(">HHI", 0x0010, 2048, 0)
    public += struct.pack(">H", 0)
    body = struct.pack(">I", 0x40000007) + session + struct.pack(">HHH", 4, 0, 0)
    body += struct.pack(">H", len(public)) + public + struct.pack(">H", 0) + struct.pack(">I", 0)
    return struct.pack(">HII", 0x8002, 10 + len(body), 0x131) + body
