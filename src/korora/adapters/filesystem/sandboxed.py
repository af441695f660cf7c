"""Files of images, told by a walker in a sandbox that sees one NBD export, or one image's file, and no more.

Promise: a reader of file systems that a hostile image takes over can lie about that image, and nothing else.
It ends within the time given, and what it did not tell is a problem: never that all was read.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

import msgspec

import korora
from korora.adapters.image.qemu_nbd import ITSELF, in_file, served
from korora.adapters.image.sandbox import Sandbox, end
from korora.model.files import Beside, Done, Problem, Told
from korora.model.image import ImageFiles, NbdExport

MAX_RECORD_BYTES: Final = 20 << 20
WITHIN_S: Final = 6 * 3600.0
_ASKED_EVERY_S: Final = 0.2
_DIRECTLY_BYTES: Final = 1 << 16
_PIPE_BYTES: Final = 1 << 20
Words = tuple[str, str, str]
"""How, and by what two names, the walker finds a disk."""
_DECODER: Final = msgspec.msgpack.Decoder(Told)


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class SandboxedFiles:
    """Implements `ports.filesystem.FileReader` and `FileLocator`."""

    within_s: float = WITHIN_S

    def walk(
        self,
        disk: ImageFiles | NbdExport,
        contents: Sequence[bytes] = (),
        *,
        pieces: bool = False,
        digests: bool = True,
        beside: Sequence[Beside] = (),
        stopped: Callable[[], bool] = _never,
    ) -> Generator[Told, None, None]:
        what = ("pieces" if digests else "content") if pieces else "files"
        more = [one.algorithm.encode() + b"=" + one.folder for one in beside]
        return self._told(disk, what, [*more, b"--", *contents], stopped)

    def locate(self, disk: ImageFiles | NbdExport) -> Generator[Told, None, None]:
        return self._told(disk, "places", (b"--",), _never)

    def _told(
        self, disk: ImageFiles | NbdExport, what: str, wanted: Sequence[bytes], stopped: Callable[[], bool]
    ) -> Generator[Told, None, None]:
        deadline = time.monotonic() + self.within_s
        command = [sys.executable, "-I", "-m", "korora.adapters.filesystem.walker", what]
        words = [*command, *(os.fsdecode(word) for word in wanted)]
        with ExitStack() as undone:
            errors = undone.enter_context(tempfile.TemporaryFile())
            shown = _shown(disk, undone)
            box = Sandbox(_python() | shown.files, shown.folder)
            process = box.start(words, subprocess.PIPE, errors, subprocess.PIPE)
            undone.callback(_left, process)
            # It starts, which takes a while, while the disk is made ready for it.
            _order(process, undone.enter_context(_ready(disk, shown.folder)))
            yield from _records(_Reading(process, deadline, stopped), process, errors)


def _left(process: subprocess.Popen[bytes]) -> None:
    end(process)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()


def _order(process: subprocess.Popen[bytes], words: Words) -> None:
    """If it has ended by then, that is seen where it tells nothing."""
    assert process.stdin is not None  # noqa: S101  it is a pipe
    with suppress(BrokenPipeError):
        process.stdin.write("\0".join(words).encode())
        process.stdin.close()


@dataclass(frozen=True, slots=True)
class _Shown:
    """What the walker sees of a disk in its sandbox."""

    folder: Path
    files: dict[str, Path] = field(default_factory=dict)


def _shown(disk: ImageFiles | NbdExport, undone: ExitStack) -> _Shown:
    if isinstance(disk, NbdExport):
        return _Shown(disk.socket.parent)
    folder = Path(undone.enter_context(tempfile.TemporaryDirectory(prefix="korora-files-")))
    alone = not disk.others and disk.slice is None
    return _Shown(folder, {ITSELF: disk.path.resolve()} if alone else {})


@contextmanager
def _ready(disk: ImageFiles | NbdExport, folder: Path) -> Iterator[Words]:
    """Where the walker finds it, for as long as this lasts."""
    if isinstance(disk, NbdExport):
        yield "nbd", f"/run/{disk.socket.name}", disk.name
        return
    with ThreadPoolExecutor(1, "layout") as looking:
        where = looking.submit(in_file, disk)
        with served(disk, folder) as handles:
            found = where.result()
            layout = found.served_as(handles[0].get_size()) if found is not None else None
            if layout is None:
                yield "nbd", "/run/nbd", ""
                return
            (folder / "layout").write_bytes(layout.encoded())
            yield "file", ITSELF, "/run/layout"


def _python() -> dict[str, Path]:
    """This interpreter, its libraries, and this program."""
    places = {Path(sys.prefix), Path(sys.base_prefix), Path(korora.__file__).resolve().parents[1]}
    return {str(place): place for place in sorted(places) if not place.is_relative_to("/usr")}


def _records(reading: _Reading, process: subprocess.Popen[bytes], errors: IO[bytes]) -> Iterator[Told]:
    while True:
        try:
            told = _DECODER.decode(reading.record())
        except (EOFError, TimeoutError, msgspec.MsgspecError) as error:
            yield Problem("the reader of files", _last_words(process, errors, error))
            return
        yield told
        if isinstance(told, Done):
            return


class _Reading:
    """Bytes of a pipe until a deadline, or until nobody wants any more."""

    def __init__(
        self, process: subprocess.Popen[bytes], deadline: float, stopped: Callable[[], bool]
    ) -> None:
        assert process.stdout is not None  # noqa: S101  it is a pipe
        self._pipe = process.stdout.fileno()
        with suppress(OSError):  # an account may have no more of such memory: then it goes more slowly
            fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._deadline = deadline
        self._stopped = stopped
        self._ready = selectors.DefaultSelector()
        self._ready.register(self._pipe, selectors.EVENT_READ)
        self._held, self._at = b"", 0

    def record(self) -> memoryview | bytearray:
        """The next one. EOFError where there is none, TimeoutError after the deadline."""
        length = int.from_bytes(self._exactly(4), "big")
        if length > MAX_RECORD_BYTES:
            raise EOFError("it told of something too large")
        return self._directly(length) if length > _DIRECTLY_BYTES else self._exactly(length)

    def _exactly(self, length: int) -> memoryview:
        while len(self._held) - self._at < length:
            self._wait()
            piece = os.read(self._pipe, _DIRECTLY_BYTES)
            if not piece:
                raise EOFError("it ended early")
            self._held, self._at = self._held[self._at :] + piece, 0
        begin, self._at = self._at, self._at + length
        return memoryview(self._held)[begin : self._at]

    def _directly(self, length: int) -> bytearray:
        """Much of it, copied once: into its own place."""
        told = bytearray(length)
        came = min(length, len(self._held) - self._at)
        told[:came] = self._exactly(came)
        rest = memoryview(told)[came:]
        while rest:
            self._wait()
            count = os.readv(self._pipe, [rest])
            if not count:
                raise EOFError("it ended early")
            rest = rest[count:]
        return told

    def _wait(self) -> None:
        while True:
            within_s = self._deadline - time.monotonic()
            if within_s <= 0:  # also when there is always more to read
                raise TimeoutError("it did not end in time")
            if self._ready.select(min(_ASKED_EVERY_S, within_s)):
                return
            if self._stopped():
                raise EOFError("nobody wants any more")


def _last_words(process: subprocess.Popen[bytes], errors: IO[bytes], error: Exception) -> str:
    end(process)
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4096))
    lines = errors.read().decode("utf-8", "replace").strip().splitlines()
    return f"{error}" + (f": {lines[-1][:300]}" if lines else "")
