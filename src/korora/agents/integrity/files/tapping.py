"""The contents of files, led out of what a reader tells, to whoever takes them: engines, indicators.

Promise: each file that is begun is ended, once, before the next; without a problem only when as many bytes
came as the reader had announced. A file that is told of without its content is a file that broke off.
Limit: a reader that lies about a file lies about its content too.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from korora.agents.integrity.files.digest import shown
from korora.model.files import Begun, Ended, Entire, FileRecord, Piece, Told


class Taker(Protocol):
    """Takes the contents of one file after another."""

    def begin(self, name: str, size: int | None) -> None: ...

    def piece(self, data: bytes) -> None: ...

    def end(self, problem: str = "") -> None:
        """All of it came, or `problem` says why not."""
        ...


def name_of(volume: int, path: bytes) -> str:
    """How a file inside is named, where the results of several volumes stand together."""
    return f"volume {volume}: {shown(path)}"


def tapped(
    told: Iterable[Told], takers: Sequence[Taker], wanted: Callable[[Begun | FileRecord], bool]
) -> Generator[Told, None, None]:
    """Everything but the contents, which go to the takers as far as the files are `wanted`."""
    tap = _Tap(takers, wanted)
    why = "its reader was left"
    try:
        for one in told:
            match one:
                case Begun():
                    tap.begin(one)
                case Piece():
                    tap.piece(one.data)
                case Ended():
                    tap.end(one.problem)
                case Entire():
                    tap.begin(Begun(one.volume, one.path, len(one.data)))
                    tap.piece(one.data)
                    tap.end("")
                case _:
                    tap.other(one)
                    yield one
        why = "its reader ended before it"
    finally:
        tap.end(why)


@dataclass(slots=True)
class _Tap:
    """`_now`: the file that was begun and not ended; `_last`: whose record is to come."""

    takers: Sequence[Taker]
    wanted: Callable[[Begun | FileRecord], bool]
    _now: Begun | None = None
    _last: tuple[int, bytes] | None = None
    _came: int = 0

    def begin(self, file: Begun) -> None:
        self.end("its reader went on before its end")
        self._last, self._came = (file.volume, file.path), 0
        if self.wanted(file):
            self._now = file
            for taker in self.takers:
                taker.begin(name_of(file.volume, file.path), file.size)

    def piece(self, data: bytes) -> None:
        if self._now is None:
            return
        self._came += len(data)
        for taker in self.takers:
            taker.piece(data)

    def end(self, problem: str) -> None:
        if self._now is None:
            return
        if not problem and self._came != self._now.size:
            problem = f"{self._came} bytes of it came, and not {self._now.size}"
        self._now = None
        for taker in self.takers:
            taker.end(problem)

    def other(self, one: Told) -> None:
        self.end("its reader went on before its end")
        if isinstance(one, FileRecord):
            if one.kind == "file" and self._last != (one.volume, one.path):
                self.begin(Begun(one.volume, one.path, one.size))
                self.end(one.problem or "its reader told nothing of its content")
            self._last = None
