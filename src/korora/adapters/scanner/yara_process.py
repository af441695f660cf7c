"""Our end of a YARA worker: start it, give it pieces, read its lines, end it; nothing waits for long."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any, Final

LINE_MAX_BYTES: Final = 1 << 20
_LENGTH: Final = struct.Struct(">I")
_PIECE: Final = 256 << 10


class WorkerError(Exception):
    """The worker is of no use any more; says why."""


class Worker:
    """One process. After WorkerError it is to be ended."""

    def __init__(self, work: str) -> None:
        ours, its = socket.socketpair()
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "korora.adapters.scanner.yara_worker", work],
                stdin=its.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._connection = ours
        self._unread = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    def give(self, blocks: Iterable[bytes], deadline: float) -> None:
        """All of them, as one whole."""
        for block in blocks:
            for start in range(0, len(block), _PIECE):
                piece = block[start : start + _PIECE]
                self._send(_LENGTH.pack(len(piece)) + piece, deadline)
        self._send(_LENGTH.pack(0), deadline)

    def number(self, value: int, deadline: float) -> None:
        self._send(_LENGTH.pack(value), deadline)

    def line(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._unread:
            if len(self._unread) > LINE_MAX_BYTES:
                raise WorkerError("it talks too much")
            self._receive(deadline)
        line, self._unread = self._unread.split(b"\n", 1)
        said: dict[str, Any] = json.loads(line)
        return said

    def rest(self, size: int, deadline: float) -> bytes:
        while len(self._unread) < size:
            self._receive(deadline)
        whole, self._unread = self._unread[:size], self._unread[size:]
        return whole

    def kill(self) -> None:
        """From any thread: whoever uses it gets WorkerError."""
        self._process.kill()

    def end(self) -> None:
        """By whoever uses it: nobody else reads from it then."""
        self.kill()
        self._process.wait()
        self._connection.close()

    def _send(self, content: bytes, deadline: float) -> None:
        try:
            self._connection.settimeout(_left(deadline))
            self._connection.sendall(content)
        except OSError as error:
            raise self._failed(error) from error

    def _receive(self, deadline: float) -> None:
        try:
            self._connection.settimeout(_left(deadline))
            piece = self._connection.recv(1 << 20)
        except OSError as error:
            raise self._failed(error) from error
        if not piece:
            raise self._failed(None)
        self._unread += piece

    def _failed(self, error: OSError | None) -> WorkerError:
        if isinstance(error, TimeoutError):
            return WorkerError("it took too long")
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return WorkerError(f"its process fails: {error}")
        return WorkerError(f"its process ended ({f'signal {-code}' if code < 0 else f'exit code {code}'})")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
