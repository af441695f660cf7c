"""A file or disk of this host, read as the bytes that lie in it, whatever they mean.

Promise: holes are told as zeros where the file system tells of them; what cannot be read is an error.
Limit: interprets no format, and asks for no lock: whoever writes meanwhile is not seen.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from korora.adapters.image.files import opened, read_into
from korora.adapters.image.layout import Layout
from korora.model.image import Extent
from korora.ports.image import OpenImage, Range, UnreadableError

T = TypeVar("T")
_AT_ONCE: Final = 2


class Plain:
    """Implements `ports.image.OpenImage`."""

    def __init__(
        self, descriptor: int, name: str, workers: ThreadPoolExecutor, layout: Layout | None = None
    ) -> None:
        """`layout`: where in the file the disk's bytes lie; from its beginning to its end if None."""
        self._descriptor, self._name, self._workers = descriptor, name, workers
        self._layout = layout
        self._thread = threading.local()
        self.size: int = layout.size if layout else os.lseek(descriptor, 0, os.SEEK_END)

    def extents(self, offset: int = 0) -> Iterator[Extent]:
        if self._layout:
            yield from self._layout.extents(offset)
            return
        while offset < self.size:
            data = self._next(offset, os.SEEK_DATA)
            if data > offset:
                yield Extent(offset, data - offset, zero=True)
            end = self._next(data, os.SEEK_HOLE) if data < self.size else self.size
            if end > data:
                yield Extent(data, end - data, zero=False)
            offset = max(end, offset + 1)

    def written(self) -> Iterator[Range]:
        yield from [(0, self.size)] * bool(self.size)

    def each(self, ranges: Iterable[Range], work: Callable[[memoryview], T]) -> Iterator[T]:
        waiting: deque[Future[T]] = deque()
        source = iter(ranges)
        try:
            while True:
                while len(waiting) < 2 * _AT_ONCE and (wanted := next(source, None)):
                    waiting.append(self._workers.submit(self._read, wanted, work))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _next(self, offset: int, what: int) -> int:
        """Where data or a hole begins; all is data to a file system that does not tell."""
        try:
            return min(os.lseek(self._descriptor, offset, what), self.size)
        except OSError as error:
            if error.errno == errno.ENXIO or what == os.SEEK_HOLE:
                return self.size
            return offset

    def _read(self, wanted: Range, work: Callable[[memoryview], T]) -> T:
        offset, length = wanted
        space = self._space(length)
        pieces = self._layout.pieces(offset, length) if self._layout else [(length, offset)]
        done = 0
        for count, place in pieces:
            part = space[done : done + count]
            try:
                read_into(part, self._descriptor, place)
            except OSError as error:
                why = error.strerror or str(error)
                raise UnreadableError(
                    f"bytes {offset} to {offset + length} of {self._name} cannot be read: {why}",
                    wanted,
                    remedy="the storage below it fails, or the file was cut short meanwhile",
                ) from error
            done += count
        return work(space)

    def _space(self, length: int) -> memoryview:
        """The thread's own, used again: new memory costs as much as the reading."""
        held: bytearray = getattr(self._thread, "space", None) or bytearray()
        if len(held) < length:
            held = self._thread.space = bytearray(length)
        return memoryview(held)[:length]


@contextmanager
def plain(path: Path, layout: Layout | None = None) -> Iterator[OpenImage]:
    """UsageError(kind="no-image") when it is no file and no disk."""
    with opened(path) as file, ThreadPoolExecutor(_AT_ONCE, "plain") as workers:
        yield Plain(file.fileno(), str(path), workers, layout)
