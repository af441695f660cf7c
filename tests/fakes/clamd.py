"""A clamd that speaks the documented protocol over a unix socket, and breaks it where the test wants."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

from fakes.scanner import eicar

Says = Callable[[bytes], bytes]


def as_documented(content: bytes) -> bytes:
    return b"stream: Eicar-Signature FOUND\0" if content.startswith(eicar()) else b"stream: OK\0"


class FakeClamd:
    """`says`: what is answered to a whole stream. `version`: to VERSION. `refuses`: what is answered to a
    descriptor, if it takes none."""

    def __init__(
        self,
        place: Path,
        says: Says = as_documented,
        version: bytes = b"ClamAV 1.4.3/27750/Tue Sep  2 08:27:33 2025",
        limit: int = 32 << 20,
        refuses: bytes | None = None,
    ) -> None:
        self.place = place
        self.streams: list[list[bytes]] = []
        self.descriptors: list[bytes] = []
        self._refuses = refuses
        self._says, self._version, self._limit = says, version, limit
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(place))
        self._listening.listen(16)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        """One command, or those of a session, whose answers are numbered."""
        session, number = False, 0
        with connection, _Incoming(connection) as reading:
            while command := _command(reading.read):
                if command == b"zIDSESSION\0":
                    session = True
                    continue
                if command == b"zEND\0":
                    return
                number += 1
                reply = self._reply(command, reading)
                try:
                    connection.sendall(b"%d: %s" % (number, reply) if session and reply else reply)
                except OSError:
                    return
                if not session or not reply.endswith(b"\0") or b"limit exceeded" in reply:
                    return

    def _of_descriptor(self, reading: _Incoming) -> bytes:
        """With it comes one byte that says nothing."""
        reading.read(1)
        if self._refuses is not None:
            return self._refuses
        descriptor = reading.descriptors.pop(0)
        content = os.pread(descriptor, os.fstat(descriptor).st_size + 1, 0)
        os.close(descriptor)
        self.descriptors.append(content)
        return self._says(content).replace(b"stream: ", b"fd[12]: ", 1)

    def _reply(self, command: bytes, reading: _Incoming) -> bytes:
        if command == b"zFILDES\0":
            return self._of_descriptor(reading)
        if command == b"zINSTREAM\0":
            return self._of_stream(reading.read)
        told = {b"zPING\0": b"PONG\0", b"zVERSION\0": self._version + b"\0"}
        return told.get(command, b"UNKNOWN COMMAND\0")

    def _of_stream(self, read: Callable[[int], bytes]) -> bytes:
        pieces: list[bytes] = []
        while True:
            head = read(4)
            if len(head) < 4:
                return b""
            (length,) = struct.unpack(">I", head)
            if not length:
                self.streams.append(pieces)
                return self._says(b"".join(pieces))
            if sum(map(len, pieces)) + length > self._limit:
                return b"INSTREAM size limit exceeded. ERROR\0"
            pieces.append(read(length))


class _Incoming:
    """What comes over a socket: bytes, and descriptors."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._held = b""
        self.descriptors: list[int] = []

    def __enter__(self) -> _Incoming:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)

    def read(self, length: int) -> bytes:
        while len(self._held) < length:
            came, descriptors, _, _ = socket.recv_fds(self._connection, 1 << 16, 4)
            self.descriptors += descriptors
            if not came:
                break
            self._held += came
        told, self._held = self._held[:length], self._held[length:]
        return told


def _command(read: Callable[[int], bytes]) -> bytes:
    command = b""
    while not command.endswith(b"\0"):
        byte = read(1)
        if not byte:
            return b""
        command += byte
    return command
