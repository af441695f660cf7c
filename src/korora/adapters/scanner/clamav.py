"""ClamAV, through its daemon's socket: a file goes over it in counted pieces, or as a descriptor, and comes
back as a sentence.

Promise: whatever clamd does (silence, half a sentence, an end in the middle, limits of its own) is *unknown*
with clamd's words. Limit: what clamd calls OK is believed; its limits for what lies inside archives are
whatever its configuration says.
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from korora.adapters.scanner.clamd_process import Clamd
from korora.adapters.scanner.clamd_session import Session, Sessions, connected, is_verdict, left, reply
from korora.adapters.scanner.signature_folder import Signatures
from korora.model.scan import Answer, EngineAnswer, EngineFacts
from korora.ports.scanner import Stream

NAME: Final = "clamav"
_ASKED_WITHIN_S: Final = 5.0
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
        self._sessions = Sessions(place)
        self._signatures = signatures
        self._process = process
        self._note = note
        self._closed = False
        self._takes_descriptors = True

    @property
    def name(self) -> str:
        return NAME

    @property
    def punctual(self) -> bool:
        return True  # by the timeouts of its socket

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
        blocks = stream.blocks
        try:
            if stream.at_hand and self._takes_descriptors:
                held = list(blocks)
                if (said := self._handed_over(held, deadline)) is not None:
                    return understood(said)
                blocks = iter(held)
            with self._session(deadline) as session:
                return understood(session.scan(blocks, deadline))
        except OSError as error:
            return EngineAnswer(NAME, Answer.UNKNOWN, self._silent(error))

    def _handed_over(self, blocks: list[bytes], deadline: float) -> bytes | None:
        """clamd's sentence on a descriptor; None where it is no verdict, and what it says of a stream counts.

        It may not be allowed to take any (AppArmor), so it is given none any more.
        """
        try:
            with self._session(deadline) as session:
                said = session.hand_over(blocks, deadline)
        except TimeoutError:
            raise
        except OSError:
            said = b""
        if is_verdict(said):
            return said
        self._takes_descriptors = False
        return None

    @contextmanager
    def _session(self, deadline: float) -> Iterator[Session]:
        session = self._sessions.take(left(deadline))
        try:
            yield session
        finally:
            self._sessions.give_back(session)

    def close(self) -> None:
        self._closed = True
        self._sessions.close()
        if self._process is not None:
            self._process.end()

    def answers(self) -> bool:
        try:
            return self._asked(b"zPING\0") == b"PONG"
        except OSError:
            return False

    def _asked(self, command: bytes) -> bytes:
        deadline = time.monotonic() + _ASKED_WITHIN_S
        with connected(self._place, _ASKED_WITHIN_S) as connection:
            connection.sendall(command)
            return reply(connection, deadline)

    def _silent(self, error: OSError) -> str:
        said = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error)
        return f"clamd at {self._place}: {said}"


def understood(said: bytes) -> EngineAnswer:
    """clamd's sentence as an answer; whatever is not understood is *unknown*."""
    text = said.decode("utf-8", "backslashreplace").strip()
    if text == "stream: OK":
        return EngineAnswer(NAME, Answer.CLEAN, "OK")
    found = _FOUND.fullmatch(text)
    if found is None:
        return EngineAnswer(NAME, Answer.UNKNOWN, text or "an empty answer")
    if found[1].startswith(_GAVE_UP):
        return EngineAnswer(NAME, Answer.UNKNOWN, found[1])
    return EngineAnswer(NAME, Answer.SUSPICIOUS if found[1].startswith(_HINTS) else Answer.INFECTED, found[1])


def understood_version(said: bytes) -> tuple[str, int | None]:
    """`ClamAV 1.4.3/27750/Tue Sep  2 08:27:33 2025`; without its own signatures only the first part."""
    version, *rest = said.decode("utf-8", "backslashreplace").strip().split("/", 2)
    if len(rest) < 2:
        return version, None
    try:
        return f"{version}, daily {rest[0]}", calendar.timegm(time.strptime(rest[1]))
    except (ValueError, OverflowError):
        return version, None
