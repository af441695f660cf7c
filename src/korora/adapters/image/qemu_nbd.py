"""Images through `qemu-nbd` in a sandbox, read by libnbd over several connections.

Promise: the format is the declared one; QEMU can open the image's own file and those that were allowed, and
nothing else. What cannot be read is an error with its place. Memory: some 20 MiB here beside QEMU's caches.
Limit: an image that a running VM has open for writing is refused by its lock; read a snapshot of it.
"""

from __future__ import annotations

import json
import posixpath
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

from korora.adapters.image import nbd
from korora.adapters.image.sandbox import Sandbox
from korora.errors import IntegrityError, KororaError, ToolError
from korora.model.image import Extent, ImageFiles
from korora.ports.image import OpenImage, Range

T = TypeVar("T")
CONNECTIONS: Final = 4
STARTS_WITHIN_S: Final = 60.0
_BATCH: Final = 16
_AT_ONCE: Final = 4  # ranges of one connection
_REQUEST_BYTES: Final = 1 << 18  # what stays in a processor's cache on its way goes twice as fast as a MiB
_STATUS_BYTES: Final = 1 << 31
_FOLDER: Final = "/images"
_ITSELF: Final = f"{_FOLDER}/.image"
_ZERO: Final = 2  # NBD_STATE_ZERO
_MAX_DESCRIPTION_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class QemuImages:
    """Implements `ports.image.ImageReader`."""

    connections: int = CONNECTIONS

    def describe(self, image: ImageFiles) -> dict[str, Any]:
        command = ["qemu-img", "info", "--output=json", "--image-opts", _options(image)]
        with tempfile.TemporaryFile() as output:
            process = Sandbox(_seen(image), processor_s=60).start(command, output)
            try:
                _, said = process.communicate(timeout=STARTS_WITHIN_S)
            except subprocess.TimeoutExpired as error:
                raise ToolError(f"QEMU did not describe {image.path}", kind="image-timeout") from error
            finally:
                process.kill()
                process.wait()
            output.seek(0)
            text = output.read(_MAX_DESCRIPTION_BYTES)
        if process.returncode != 0:
            raise _failed(image, said)
        described: dict[str, Any] = json.loads(text)
        return described

    @contextmanager
    def open(self, image: ImageFiles) -> Iterator[OpenImage]:
        temporary = tempfile.TemporaryDirectory(prefix="korora-image-")
        with temporary as folder, exported(image, Path(folder), self.connections) as handles:
            opened = _Open(handles)
            try:
                yield opened
            finally:
                opened.close()


@contextmanager
def exported(image: ImageFiles, folder: Path, connections: int = 1) -> Iterator[list[Any]]:
    """So many connections to an export of it at `folder`/nbd; one more can be made there."""
    command = ["qemu-nbd", "--read-only", "--persistent", f"--shared={connections + 1}", "--socket=/run/nbd"]
    process = Sandbox(_seen(image), folder).start([*command, "--image-opts", _options(image)])
    try:
        yield _connected(image, process, folder / "nbd", connections)
    finally:
        process.kill()
        process.communicate()


def _seen(image: ImageFiles) -> dict[str, Path]:
    """What the sandbox shows, by the names under which QEMU will look for it."""
    others = {posixpath.normpath(posixpath.join(_FOLDER, name)): path for name, path in image.others}
    return {_ITSELF: image.path.resolve()} | {name: path.resolve() for name, path in others.items()}


def _options(image: ImageFiles) -> str:
    if image.slice is None:
        return f"driver={image.format},read-only=on,file.driver=file,file.filename={_ITSELF}"
    part = f"file.driver=raw,file.offset={image.slice.offset},file.size={image.slice.length}"
    return f"driver={image.format},read-only=on,{part},file.file.driver=file,file.file.filename={_ITSELF}"


def _connected(
    image: ImageFiles, process: subprocess.Popen[bytes], socket: Path, connections: int
) -> list[Any]:
    library = nbd.library()
    deadline = time.monotonic() + STARTS_WITHIN_S
    handles: list[Any] = []
    while len(handles) < connections:
        handle = library.NBD()
        handle.add_meta_context("base:allocation")
        try:
            handle.connect_unix(str(socket))
            handles.append(handle)
        except library.Error as error:
            if process.poll() is not None:
                assert process.stderr is not None  # noqa: S101  it is a pipe
                raise _failed(image, process.stderr.read(65536)) from error
            if time.monotonic() > deadline:
                raise ToolError(
                    f"{image.path} was not opened within {STARTS_WITHIN_S:.0f} s", kind="image-timeout"
                ) from error
            time.sleep(0.005)
    return handles


def _failed(image: ImageFiles, said: bytes) -> KororaError:
    """QEMU's last word, with what to do about the usual causes."""
    lines = said.decode("utf-8", "replace").replace(_ITSELF, str(image.path)).strip().splitlines()
    words = (lines[-1] if lines else "it ended without a word")[:500]
    if "lock" in words or "another process" in words:
        return ToolError(
            f"{image.path} is in use: {words}",
            kind="image-in-use",
            remedy="stop the VM, or take a snapshot and read that",
        )
    if "Permission denied" in words or "bwrap:" in words:
        return ToolError(f"{image.path} cannot be opened: {words}", kind="image-files")
    return IntegrityError(
        f"{image.path} cannot be read as {image.format}: {words}",
        kind="bad-image",
        remedy="see that the format is the right one (--format); if so, the image is damaged",
    )


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A range that is being read into `space`, by these requests."""

    range: Range
    space: memoryview
    cookies: list[int]


class _Open:
    """Implements `ports.image.OpenImage` over connections to one export."""

    def __init__(self, handles: list[Any]) -> None:
        self._handles = handles
        self._error: type[Exception] = nbd.library().Error
        self._thread = threading.local()
        self._free = deque(handles)
        self._workers = ThreadPoolExecutor(len(handles), "image", initializer=self._take_handle)
        self.size: int = handles[0].get_size()

    def close(self) -> None:
        self._workers.shutdown(cancel_futures=True)
        self._handles.clear()

    def _take_handle(self) -> None:
        self._thread.handle = self._free.popleft()
        self._thread.buffers = {}

    def extents(self, offset: int = 0) -> Iterator[Extent]:
        handle = self._handles[0]
        if not handle.can_meta_context("base:allocation"):
            yield from self._all_of_it(offset)
            return
        while offset < self.size:
            said: list[int] = []
            with self._translated(offset, min(_STATUS_BYTES, self.size - offset)):
                handle.block_status(
                    min(_STATUS_BYTES, self.size - offset),
                    offset,
                    lambda _context, _offset, entries, _error, into=said: into.extend(entries) or 0,
                )
            begun = offset
            for length, flags in zip(said[::2], said[1::2], strict=True):
                end = min(offset + length, self.size)
                yield Extent(offset, end - offset, bool(flags & _ZERO))
                offset = end
            if offset <= begun:
                raise ToolError(f"QEMU does not say what is at byte {offset}", kind="unreadable")

    def _all_of_it(self, offset: int) -> Iterator[Extent]:
        if offset < self.size:
            yield Extent(offset, self.size - offset, zero=False)

    def each(self, ranges: Iterable[Range], work: Callable[[memoryview], T]) -> Iterator[T]:
        waiting: deque[Future[list[T]]] = deque()
        source = iter(ranges)
        try:
            while True:
                while len(waiting) < 2 * len(self._handles) and (batch := list(islice(source, _BATCH))):
                    waiting.append(self._workers.submit(self._read, batch, work))
                if not waiting:
                    return
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _read(self, batch: list[Range], work: Callable[[memoryview], T]) -> list[T]:
        """Some ranges are under way at a time on the thread's own connection; each is used in turn."""
        made: list[T] = []
        under_way: deque[_UnderWay] = deque()
        source = iter(batch)
        while True:
            while len(under_way) < _AT_ONCE and (wanted := next(source, None)):
                under_way.append(self._begun(wanted, under_way))
            if not under_way:
                return made
            made.append(work(self._ended(under_way.popleft())))

    def _begun(self, wanted: Range, others: Iterable[_UnderWay]) -> _UnderWay:
        offset, length = wanted
        space, handle = self._space(length, others), self._thread.handle
        cookies = []
        for at in range(0, length, _REQUEST_BYTES):
            part = nbd.library().Buffer.from_buffer(space[at : at + _REQUEST_BYTES])
            with self._translated(offset, length):
                cookies.append(handle.aio_pread(part, offset + at))
        return _UnderWay(wanted, space, cookies)

    def _ended(self, one: _UnderWay) -> memoryview:
        handle = self._thread.handle
        with self._translated(*one.range):
            for cookie in one.cookies:
                while not handle.aio_command_completed(cookie):
                    handle.poll(-1)
        return one.space

    def _space(self, length: int, others: Iterable[_UnderWay]) -> memoryview:
        """Some of the thread's own that is not in use."""
        pool: list[memoryview] = self._thread.buffers.setdefault(length, [])
        used = {id(other.space) for other in others}
        free = next((space for space in pool if id(space) not in used), None)
        if free is None:
            free = memoryview(bytearray(length))
            pool.append(free)
        return free

    @contextmanager
    def _translated(self, offset: int, length: int) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            raise ToolError(
                f"bytes {offset} to {offset + length} of the disk cannot be read: {error}",
                kind="unreadable",
                remedy="the storage below it fails, or the image is damaged there; nothing is said of it",
            ) from error
