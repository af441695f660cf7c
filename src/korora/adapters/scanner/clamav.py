"""ClamAV, through its daemon's socket: a file goes over it in counted pieces, and comes back as a sentence.

Promise: whatever clamd does (silence, half a sentence, an end in the middle, limits of its own) is *unknown*
with clamd's words. Limit: what clamd calls OK is believed; its limits for what lies inside archives are
whatever its configuration says.
"""

from __future__ import annotations

import calendar
import re
import select
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from korora.adapters.scanner.clamd_process import Clamd
from korora.adapters.scanner.signature_folder import Signatures
from korora.model.scan import Answer, EngineAnswer, EngineFacts
from korora.ports.scanner import Stream

NAME: Final = "clamav"
REPLY_MAX_BYTES: Final = 64 << 10
_ASKED_WITHIN_S: Final = 5.0
_END: Final = struct.pack(">I", 0)
_FOUND: Final = re.compile(r"stream: (.+) FOUND")
# What clamd "finds" when it gave up: AlertExceedsMax, AlertEncrypted.
_GAVE_UP: Final = ("Heuristics.Limits.Exceeded", "Heuristics.Encrypted")
_HINTS: Final = ("Heuristics.", "PUA.")


class ClamAv:
    """Implements `ports.scanner.Scanner`. `process`: a clamd of our own, which ends with this."""

    def __init__(
        self,
        place: Path,
        signatures: Signatures | None = None,
        process: Clamd | None = None,
        note: str = "",
    ) -> None:
        self._place = place
        self._signatures = signatures
        self._process = process
        self._note = note
        self._closed = False

    @property
    def name(self) -> str:
        return NAME

    def facts(self) -> EngineFacts:
        if self._closed:
            return EngineFacts(NAME, problem="it is closed")
        try:
            version, dated = understood_version(self._asked(b"zVERSION\0"))
        except OSError as error:
            return EngineFacts(NAME, problem=self._silent(error), note=self._note)
        count = self._process.loaded() if self._process else None
        if count is None and self._signatures is not None:
            count = self._signatures.count
        dates = [date for date in (dated, self._signatures and self._signatures.dated) if date]
        return EngineFacts(NAME, version, count, max(dates, default=None), note=self._note)

    def scan(self, stream: Stream, within_s: float) -> EngineAnswer:
        deadline = time.monotonic() + within_s
        if self._closed:
            return EngineAnswer(NAME, Answer.UNKNOWN, "it is closed")
        try:
            with self._connected(within_s) as connection:
                _pour(connection, stream.blocks, deadline)
                return understood(_reply(connection, deadline))
        except OSError as error:
            return EngineAnswer(NAME, Answer.UNKNOWN, self._silent(error))

    def close(self) -> None:
        self._closed = True
        if self._process is not None:
            self._process.end()

    def answers(self) -> bool:
        try:
            return self._asked(b"zPING\0") == b"PONG"
        except OSError:
            return False

    def _asked(self, command: bytes) -> bytes:
        deadline = time.monotonic() + _ASKED_WITHIN_S
        with self._connected(_ASKED_WITHIN_S) as connection:
            connection.sendall(command)
            return _reply(connection, deadline)

    def _connected(self, within_s: float) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(max(0.01, within_s))
            connection.connect(str(self._place))
        except BaseException:
            connection.close()
            raise
        return connection

    def _silent(self, error: OSError) -> str:
        said = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error)
        return f"clamd at {self._place}: {said}"


def _pour(connection: socket.socket, blocks: Iterator[bytes], deadline: float) -> None:
    """INSTREAM: pieces, each after its length in four bytes, then a length of none.

    Ends early when clamd has something to say before: that it takes no more.
    """
    connection.sendall(b"zINSTREAM\0")
    try:
        for block in blocks:
            if not block:
                continue
            if select.select([connection], [], [], 0)[0]:
                return
            connection.settimeout(_left(deadline))
            connection.sendall(struct.pack(">I", len(block)) + block)
        connection.sendall(_END)
    except (BrokenPipeError, ConnectionResetError):
        return  # it may have said why


def _reply(connection: socket.socket, deadline: float) -> bytes:
    """One sentence, without the zero byte that ends it. OSError when there is no whole one."""
    said = b""
    while len(said) < REPLY_MAX_BYTES:
        connection.settimeout(_left(deadline))
        piece = connection.recv(4096)
        if not piece:
            break
        said += piece
        if b"\0" in piece:
            return said.split(b"\0")[0]
    raise OSError(f"it ended in the middle of its answer ({said[:80]!r})" if said else "it ended unheard")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def understood(reply: bytes) -> EngineAnswer:
    """clamd's sentence as an answer; whatever is not understood is *unknown*."""
    text = reply.decode("utf-8", "backslashreplace").strip()
    if text == "stream: OK":
        return EngineAnswer(NAME, Answer.CLEAN, "OK")
    found = _FOUND.fullmatch(text)
    if found is None:
        return EngineAnswer(NAME, Answer.UNKNOWN, text or "an empty answer")
    if found[1].startswith(_GAVE_UP):
        return EngineAnswer(NAME, Answer.UNKNOWN, found[1])
    return EngineAnswer(NAME, Answer.SUSPICIOUS if found[1].startswith(_HINTS) else Answer.INFECTED, found[1])


def understood_version(reply: bytes) -> tuple[str, int | None]:
    """`ClamAV 1.4.3/27750/Tue Sep  2 08:27:33 2025`; without its own signatures only the first part."""
    version, *rest = reply.decode("utf-8", "backslashreplace").strip().split("/", 2)
    if len(rest) < 2:
        return version, None
    try:
        return f"{version}, daily {rest[0]}", calendar.timegm(time.strptime(rest[1]))
    except (ValueError, OverflowError):
        return version, None
