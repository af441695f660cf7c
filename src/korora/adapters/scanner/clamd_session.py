"""clamd's IDSESSION: one connection for many files, which costs clamd a tenth of a connection for each.

Promise: an answer is the one to the file that was sent, by its number; a session in which anything went
otherwise is never used again. Limit: one file at a time in each session.

A file goes as a stream (INSTREAM), which clamd writes to a file of its own; or, if it is small and in memory,
as the descriptor of memory of this session (FILDES), of which clamd makes no copy. What clamd has answered to
it reads no more, so the next file is written there; where no answer came, it is left as it is.
"""

from __future__ import annotations

import os
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

REPLY_MAX_BYTES: Final = 64 << 10
SENT_BYTES: Final = 128 << 10
"""At once, where there is so much."""
_LATELY_S: Final = 1.0
"""What was used so lately is not looked at: clamd leaves such a session, and answers are numbered."""
_END: Final = struct.pack(">I", 0)
_FILDES: Final = b"zFILDES\0\0"
_DESCRIPTOR: Final = re.compile(rb"^fd\[[0-9]{1,10}\]: ")


class Session:
    """One connection. OSError for whatever goes wrong with it."""

    def __init__(self, place: Path, within_s: float) -> None:
        self._count = 0
        self._usable = True
        self._memory, self._filled = -1, 0
        self._handing: list[tuple[int, int, bytes]] = []
        self._last = time.monotonic()
        self._connection = connected(place, within_s)
        try:
            self._connection.sendall(b"zIDSESSION\0")
            self._connection.setblocking(False)
        except BaseException:
            self._connection.close()
            raise

    @property
    def usable(self) -> bool:
        """Nothing is left over, and clamd has not ended it: it ends those that are idle for long."""
        return self._usable and (
            time.monotonic() - self._last < _LATELY_S or not waits(self._connection, select.POLLIN, 0)
        )

    def scan(self, blocks: Iterator[bytes], deadline: float) -> bytes:
        """clamd's sentence on this content."""
        self._usable = False
        self._count += 1
        return self._said(self._pour(blocks, deadline), deadline)

    def hand_over(self, blocks: Sequence[bytes], deadline: float) -> bytes:
        """clamd's sentence on this content, of few blocks, in the words that it has for a stream."""
        self._usable = False
        self._count += 1
        if self._memory < 0:
            self._memory = os.memfd_create("korora")
            self._handing = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", self._memory))]
        size = sum(map(len, blocks))
        if os.pwritev(self._memory, blocks, 0) != size:
            raise OSError("there was no memory for the file")
        if self._filled > size:
            os.ftruncate(self._memory, size)
        self._filled = size
        if self._connection.sendmsg([_FILDES], self._handing) != len(_FILDES):
            raise OSError("it took no descriptor")
        said = _DESCRIPTOR.sub(b"stream: ", self._said(True, deadline))
        self._usable = self._usable and is_verdict(said)
        return said

    def _said(self, whole: bool, deadline: float) -> bytes:
        """`whole`: clamd took all that was sent, so that the session can be used again."""
        number, separator, said = reply(self._connection, deadline).partition(b": ")
        if not separator or number != str(self._count).encode():
            # Before it takes a command clamd speaks without a number; an answer to another file is none.
            if number.isdigit():
                raise OSError("it answered to another file")
            return number + separator + said
        self._usable, self._last = whole, time.monotonic()
        return said

    def close(self) -> None:
        if self._usable:
            with suppress(OSError):
                self._connection.send(b"zEND\0")
        self._connection.close()
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1

    def _pour(self, blocks: Iterator[bytes], deadline: float) -> bool:
        """Pieces, each after its length in four bytes, then a length of none; whether all of it was taken.

        Ends early when clamd has something to say before: that it takes no more. A small file goes as one:
        over a command whose content comes a moment later clamd sleeps for milliseconds.
        """
        waiting = bytearray(b"zINSTREAM\0")
        try:
            for block in blocks:
                if not block:
                    continue
                waiting += struct.pack(">I", len(block)) + block
                if len(waiting) >= SENT_BYTES:
                    if waits(self._connection, select.POLLIN, 0):
                        return False
                    self._send(waiting, deadline)
                    waiting.clear()
            self._send(waiting + _END, deadline)
        except (BrokenPipeError, ConnectionResetError):
            return False  # it may have said why
        return True

    def _send(self, data: bytearray, deadline: float) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._connection.send(rest) :]
            except BlockingIOError:
                waits(self._connection, select.POLLOUT, left(deadline))
        rest.release()


class Sessions:
    """Those with one clamd: as many as files at a time."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._idle: list[Session] = []
        self._lock = threading.Lock()

    def take(self, within_s: float) -> Session:
        """OSError when there is none to be had."""
        while True:
            with self._lock:
                session = self._idle.pop() if self._idle else None
            if session is None:
                return Session(self._place, within_s)
            if session.usable:
                return session
            session.close()

    def give_back(self, session: Session) -> None:
        if not session.usable:
            session.close()
            return
        with self._lock:
            self._idle.append(session)

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()


def is_verdict(said: bytes) -> bool:
    """Whether it is a sentence on the content, and not on why there is none."""
    return said == b"stream: OK" or said.endswith(b" FOUND")


def connected(place: Path, within_s: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(max(0.01, within_s))
        connection.connect(str(place))
    except BaseException:
        connection.close()
        raise
    return connection


def reply(connection: socket.socket, deadline: float) -> bytes:
    """One sentence, without the zero byte that ends it. OSError when there is no whole one."""
    said = b""
    while len(said) < REPLY_MAX_BYTES:
        if not waits(connection, select.POLLIN, left(deadline)):
            raise TimeoutError
        piece = connection.recv(4096)
        if not piece:
            break
        said += piece
        if b"\0" in piece:
            return said.split(b"\0")[0]
    raise OSError(f"it ended in the middle of its answer ({said[:80]!r})" if said else "it ended unheard")


def waits(connection: socket.socket, until: int, within_s: float) -> bool:
    """Whether it can be read from or written to within that time."""
    ready = select.poll()
    ready.register(connection, until)
    return bool(ready.poll(1000 * within_s))


def left(deadline: float) -> float:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    return remaining
