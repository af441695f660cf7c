"""Scanners whose answers the test chooses, and a scanner in memory that knows some needles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from korora.agents.integrity.malware.streams import NamedStream
from korora.model.scan import Answer, EngineAnswer, EngineFacts
from korora.ports.scanner import Stream


def eicar() -> bytes:
    """The test file that every engine calls infected, put together here so that no file of ours is it."""
    return b"X5O!P%@AP[4\\PZX54(P^)7CC)7}" + b"$EICAR-STANDARD-" + b"ANTIVIRUS-TEST-FILE!$H+H*"


class MemoryScanner:
    """Implements `ports.scanner.Scanner`: infected is what has the needle in it."""

    def __init__(self, needle: bytes, name: str = "memory") -> None:
        self._needle = needle
        self._name = name
        self._closed = False
        self.punctual = False

    @property
    def name(self) -> str:
        return self._name

    def facts(self) -> EngineFacts:
        return EngineFacts(self.name, "1", 1, 1_800_000_000, problem="closed" if self._closed else "")

    def scan(self, stream: Stream, within_s: float) -> EngineAnswer:
        content = b"".join(stream.blocks)
        if self._closed:
            return EngineAnswer(self.name, Answer.UNKNOWN, "closed")
        found = self._needle in content
        return EngineAnswer(
            self.name, Answer.INFECTED if found else Answer.CLEAN, "the needle" if found else ""
        )

    def close(self) -> None:
        self._closed = True


class ScriptedScanner(MemoryScanner):
    """Does what the test says, with the stream."""

    def __init__(self, name: str, script: Callable[[Stream], Answer]) -> None:
        super().__init__(b"", name)
        self._script = script

    def scan(self, stream: Stream, within_s: float) -> EngineAnswer:
        return EngineAnswer(self.name, self._script(stream), "as scripted")


def reads_all(answer: Answer) -> Callable[[Stream], Answer]:
    def script(stream: Stream) -> Answer:
        for _ in stream.blocks:
            pass
        return answer

    return script


def named(name: str, *blocks: bytes, then: Exception | None = None) -> NamedStream:
    @contextmanager
    def opened() -> Iterator[Iterator[bytes]]:
        def given() -> Iterator[bytes]:
            yield from blocks
            if then is not None:
                raise then

        yield given()

    return NamedStream(name, sum(map(len, blocks)), opened)
