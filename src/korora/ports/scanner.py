"""An engine that looks for malware in one file at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from korora.model.scan import EngineAnswer, EngineFacts

BLOCK_BYTES = 256 << 10
"""No block is larger."""
AT_HAND_BYTES = 1 << 20


class BrokenStreamError(Exception):
    """The file could not be read to its end. Raised by `Stream.blocks`; a scanner lets it pass."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One file, to be read once, from its first byte on. `size` is None where nobody knows it before.

    `at_hand`: all of it is in memory, at most `AT_HAND_BYTES`: reading it waits for nobody.
    """

    size: int | None
    blocks: Iterator[bytes]
    at_hand: bool = False


class Scanner(Protocol):
    """Methods block, and any thread may call them at any time."""

    @property
    def name(self) -> str: ...

    @property
    def punctual(self) -> bool:
        """Whether `scan` ends within its time even when what it asks stands still: no thread has to be spent
        on that it might not."""
        ...

    def facts(self) -> EngineFacts:
        """Asked of the engine anew. Does not raise: what is wrong is the facts' `problem`."""
        ...

    def scan(self, stream: Stream, within_s: float) -> EngineAnswer:
        """The engine's answer, after `within_s` seconds at the latest, once the stream gives what it has.

        Whatever goes wrong with the engine is the answer *unknown*; BrokenStreamError alone is raised. It may
        stop reading early, but says *clean* only of a stream that it has read to its end.
        """
        ...

    def close(self) -> None:
        """End what it started. From then on, and for scans under way, its answer is *unknown*."""
        ...
