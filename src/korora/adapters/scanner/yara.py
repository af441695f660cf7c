"""YARA-X: a folder of rules, compiled once, in processes of its own that a file can cost, and nothing more.

Promise: a rule that takes too long, eats memory or breaks the library makes the file *unknown* to this
engine. Limit: YARA needs a file in memory, so it reads a bounded part of it; of a longer file a match counts,
and no match is *unknown*. It sees the file as it is and opens no archive.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from korora.adapters.scanner import yara_rules
from korora.adapters.scanner.yara_process import Worker, WorkerError
from korora.errors import ToolError
from korora.model.scan import Answer, EngineAnswer, EngineFacts
from korora.ports.scanner import Stream

NAME: Final = "yara"
READ_BYTES: Final = 64 << 20
_READY_WITHIN_S: Final = 60.0
_IDLE_MAX: Final = 8


class Yara:
    """Implements `ports.scanner.Scanner`."""

    def __init__(
        self, folder: Path, cache: Path, *, read_bytes: int = READ_BYTES, own: bool = False, note: str = ""
    ) -> None:
        """`own`: the rules are Korora's, of which the date of the installation says nothing."""
        self._read_bytes = read_bytes
        self._note = note
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        self._closed = False
        self._count: int | None = None
        self._dated: int | None = None
        self._rules = b""
        self._problem = self._prepare(folder, cache, own=own)

    @property
    def name(self) -> str:
        return NAME

    @property
    def punctual(self) -> bool:
        return False

    def facts(self) -> EngineFacts:
        release = f"YARA-X {version('yara-x')}"
        problem = "it is closed" if self._closed else self._problem
        return EngineFacts(NAME, release, self._count, self._dated, problem, self._note)

    def scan(self, stream: Stream, within_s: float) -> EngineAnswer:
        if self._problem:
            return _unknown(self._problem)
        deadline = time.monotonic() + within_s
        part = _Part(stream.blocks, self._read_bytes)
        worker: Worker | None = None
        try:
            worker = self._taken(deadline)
            worker.number(max(1, int(within_s)), deadline)
            worker.give(part, deadline)
            said = worker.line(deadline)
        except WorkerError as error:
            return _unknown(f"YARA: {error}")
        else:
            self._given_back(worker)
            worker = None
            return _understood(said, cut_at=self._read_bytes if part.cut else None)
        finally:
            # Also when the stream broke off: the worker waits for the rest of it.
            if worker is not None:
                self._ended(worker)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for worker in self._busy:
                worker.kill()
            ending, self._idle = self._idle, []
        for worker in ending:
            worker.end()

    def _prepare(self, folder: Path, cache: Path, *, own: bool) -> str:
        """Why there are no rules; "" when there are."""
        try:
            sources = yara_rules.read(folder)
            self._dated = None if own else sources.dated
            self._rules = yara_rules.compiled(sources, cache)
            self._given_back(self._taken(time.monotonic() + _READY_WITHIN_S))
        except ToolError as error:
            return error.message
        except WorkerError as error:
            return f"YARA: {error}"
        return ""

    def _taken(self, deadline: float) -> Worker:
        """One that has the rules and nothing to do. WorkerError when none can be had."""
        with self._lock:
            if self._closed:
                raise WorkerError("it is closed")
            if self._idle:
                worker = self._idle.pop()
                self._busy.add(worker)
                return worker
            worker = Worker("scan")
            self._busy.add(worker)
        try:
            worker.give([self._rules], deadline)
            said = worker.line(deadline)
            if "error" in said:
                raise WorkerError(f"the rules cannot be loaded: {said['error']}")
        except BaseException:
            self._ended(worker)
            raise
        self._count = said["rules"]
        return worker

    def _ended(self, worker: Worker) -> None:
        with self._lock:
            self._busy.discard(worker)
        worker.end()

    def _given_back(self, worker: Worker) -> None:
        with self._lock:
            self._busy.discard(worker)
            keep = not self._closed and len(self._idle) < _IDLE_MAX
            if keep:
                self._idle.append(worker)
        if not keep:
            worker.end()


class _Part:
    """The beginning of a stream, and whether it was cut off there."""

    def __init__(self, blocks: Iterator[bytes], limit: int) -> None:
        self._blocks = blocks
        self._left = limit
        self.cut = False

    def __iter__(self) -> Iterator[bytes]:
        for block in self._blocks:
            if len(block) > self._left:
                self.cut = True
                yield block[: self._left]
                return
            self._left -= len(block)
            yield block


def _understood(said: dict[str, Any], cut_at: int | None) -> EngineAnswer:
    if "error" in said:
        return _unknown(f"YARA: {said['error']}")
    found = said["found"]
    if found:
        names = ", ".join(f"{rule} ({namespace})" for namespace, rule, _ in found)
        words = f"rule {names}" + (f" and {said['more']} more" if said["more"] else "")
        sure = any(not suspicious for _, _, suspicious in found)
        return EngineAnswer(NAME, Answer.INFECTED if sure else Answer.SUSPICIOUS, words)
    if cut_at is not None:
        return _unknown(f"its first {cut_at >> 20} MiB match no rule; the rest was not read")
    return EngineAnswer(NAME, Answer.CLEAN, "no rule matches")


def _unknown(words: str) -> EngineAnswer:
    return EngineAnswer(NAME, Answer.UNKNOWN, words)
