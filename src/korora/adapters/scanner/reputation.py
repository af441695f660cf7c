"""What is known of a file by its hash: lists on this machine, Korora's indicators, services that are asked.

Promise: who knows it to be bad is believed first; services are asked only about what nothing here knows. A
file that nobody knows is *unknown*. Limit: a hash says nothing of a file that differs in one bit.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from korora import named_file
from korora.adapters.scanner.online.asking import Told
from korora.errors import UsageError
from korora.model.scan import Answer, EngineAnswer, EngineFacts
from korora.ports.scanner import Stream

NAME: Final = "reputation"
ALGORITHMS: Final = {16: "md5", 20: "sha1", 32: "sha256", 64: "sha512"}
HASHES_MAX: Final = 2_000_000
LINE_MAX_BYTES: Final = 4096
_LINE: Final = re.compile(rb"\s*([0-9A-Fa-f]{32,128})(?:[\s,;*]+(.*))?", re.DOTALL)

Hashes = Mapping[str, str]
"""Algorithm → hex digits."""
Known = Callable[[Hashes], str | None]
"""Why a file with these hashes is known to be bad, if it is."""


class Asked(Protocol):
    """A service: see `online.asking.Service`."""

    @property
    def name(self) -> str: ...

    def ask(self, sha256: str, within_s: float) -> Told: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Lists:
    """Known hashes by their bytes; of bad ones with what stood beside them."""

    bad: dict[bytes, str] = field(default_factory=dict)
    good: set[bytes] = field(default_factory=set)
    dated: int | None = None

    @classmethod
    def read(cls, bad: Sequence[Path], good: Sequence[Path]) -> Lists:
        """A hash a line (MD5, SHA-1, SHA-256, SHA-512), then perhaps a name; # begins a comment.

        UsageError(kind="bad-hash-list") names the line that is none.
        """
        lists = cls()
        for path in bad:
            lists.bad.update(lists._of(path))
        for path in good:
            lists.good.update(digest for digest, _ in lists._of(path))
        return lists

    def _of(self, path: Path) -> Iterable[tuple[bytes, str]]:
        try:
            with named_file.opened(path) as file:
                self.dated = max(self.dated or 0, int(path.stat().st_mtime))
                for count, line in enumerate(iter(lambda: file.readline(LINE_MAX_BYTES), b""), 1):
                    if line.strip() and not line.lstrip().startswith(b"#"):
                        if len(self.bad) + len(self.good) >= HASHES_MAX:
                            raise _wrong(path, count, f"more than {HASHES_MAX} hashes")
                        yield _understood(path, count, line)
        except OSError as error:
            raise UsageError(
                f"{path}: {error.strerror or error}", kind="bad-hash-list", remedy="name a file of hashes"
            ) from error

    def algorithms(self) -> set[str]:
        return {ALGORITHMS[len(digest)] for known in (self.bad, self.good) for digest in known}


class Reputation:
    """Implements `ports.scanner.Scanner`. `indicators`: how many `known` looks through."""

    def __init__(
        self,
        lists: Lists,
        known: Known | None = None,
        indicators: int = 0,
        services: Sequence[Asked] = (),
        unlisted: Answer = Answer.UNKNOWN,
    ) -> None:
        """`unlisted`: what a file is that no list here has; services must not be asked when it is *clean*."""
        self._lists = lists
        self._known = known
        self._indicators = indicators
        self._services = services
        self._unlisted = unlisted
        self._algorithms = lists.algorithms() | {"sha256"} | (set(ALGORITHMS.values()) if known else set())
        self._closed = False

    @property
    def name(self) -> str:
        return NAME

    @property
    def punctual(self) -> bool:
        return False

    def facts(self) -> EngineFacts:
        bad, good = len(self._lists.bad) + self._indicators, len(self._lists.good)
        asked = ", ".join(service.name for service in self._services)
        version = f"{bad:,} hashes known to be bad, {good:,} known to be good"
        return EngineFacts(
            NAME,
            version + (f"; asks {asked} for others" if asked else ""),
            bad + good,
            self._lists.dated,
            "it is closed" if self._closed else "",
            "a file that no list has counts as clean" if self._unlisted is Answer.CLEAN else "",
        )

    def scan(self, stream: Stream, within_s: float) -> EngineAnswer:
        deadline = time.monotonic() + within_s
        hashes = self._hashes(stream)
        if self._closed:
            return EngineAnswer(NAME, Answer.UNKNOWN, "it is closed")
        told = self._by_lists(hashes)
        if told.answer is None and self._services:
            told = self._by_services(hashes["sha256"], deadline)
        return EngineAnswer(NAME, told.answer or self._unlisted, told.words)

    def close(self) -> None:
        self._closed = True
        for service in self._services:
            service.close()

    def _hashes(self, stream: Stream) -> dict[str, str]:
        computing = [hashlib.new(name, usedforsecurity=False) for name in sorted(self._algorithms)]
        for block in stream.blocks:
            for one in computing:
                one.update(block)
        return {one.name: one.hexdigest() for one in computing}

    def _by_lists(self, hashes: Hashes) -> Told:
        for name, digits in hashes.items():
            if (what := self._lists.bad.get(bytes.fromhex(digits))) is not None:
                return Told(Answer.INFECTED, f"{name} {digits} is known to be bad{what and f': {what}'}")
        if self._known is not None and (why := self._known(hashes)) is not None:
            return Told(Answer.INFECTED, why)
        for name, digits in hashes.items():
            if bytes.fromhex(digits) in self._lists.good:
                return Told(Answer.CLEAN, f"{name} {digits} is known to be good")
        return Told(None, "no list has its hash")

    def _by_services(self, sha256: str, deadline: float) -> Told:
        """All of them, until one says infected."""
        told: list[Told] = []
        for service in self._services:
            told.append(service.ask(sha256, max(0.1, deadline - time.monotonic())))
            if told[-1].answer is Answer.INFECTED:
                break
        return together(told)


def together(told: Sequence[Told]) -> Told:
    """The gravest word counts, and one that failed before one that says clean: it might have known better."""
    answers = [one.answer for one in told]
    for grave in (Answer.INFECTED, Answer.SUSPICIOUS, Answer.UNKNOWN, Answer.CLEAN, None):
        if grave in answers:
            return Told(grave or Answer.UNKNOWN, "; ".join(one.words for one in told))
    return Told(Answer.UNKNOWN, "nobody was asked")


def _understood(path: Path, count: int, line: bytes) -> tuple[bytes, str]:
    found = _LINE.fullmatch(line.rstrip(b"\r\n"))
    if found is None or len(found[1]) // 2 not in ALGORITHMS or len(found[1]) % 2:
        raise _wrong(path, count, "no hash at its beginning")
    return bytes.fromhex(found[1].decode()), (found[2] or b"").decode("utf-8", "backslashreplace").strip()[
        :100
    ]


def _wrong(path: Path, count: int, what: str) -> UsageError:
    return UsageError(
        f"{path}: line {count}: {what}",
        kind="bad-hash-list",
        remedy="write a hash a line: MD5, SHA-1, SHA-256 or SHA-512 in hex digits, then perhaps a name",
    )
