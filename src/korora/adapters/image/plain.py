"""A file or disk of this host, read as the bytes that lie in it, whatever they mean.

Promise: holes are told as zeros where the file system tells of them; what cannot be read is an error.
Limit: interprets no format, and asks for no lock: whoever writes meanwhile is not seen.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from korora.adapters.image.files import opened
from korora.errors import ToolError
from korora.model.image import Extent
from korora.ports.image import OpenImage, Range

T = TypeVar("T")
_AT_ONCE: Final = 2


class Plain:
    """Implements `ports.image.OpenImage`."""

    def __init__(self, descriptor: int, name: str, workers: ThreadPoolExecutor) -> None:
        self._descriptor, self._name, self._workers = descriptor, name, workers
        self.size: int = os.lseek(descriptor, 0, os.SEEK_END)

    def extents(self, offset: int = 0) -> Iterator[Extent]:
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
        space = memoryview(bytearray(length))
        done = 0
        while done < length:
            try:
                count = os.preadv(self._descriptor, [space[done:]], offset + done)
            except OSError as error:
                raise self._unreadable(offset, length, error.strerror or str(error)) from error
            if count == 0:
                raise self._unreadable(offset, length, "the file ends there")
            done += count
        return work(space)

    def _unreadable(self, offset: int, length: int, why: str) -> ToolError:
        return ToolError(
            f"bytes {offset} to {offset + length} of {self._name} cannot be read: {why}",
            kind="unreadable",
            remedy="the storage below it fails, or the file was cut short meanwhile",
        )


@contextmanager
def plain(path: Path) -> Iterator[OpenImage]:
    """UsageError(kind="no-image") when it is no file and no disk."""
    with opened(path) as file, ThreadPoolExecutor(_AT_ONCE, "plain") as workers:
        yield Plain(file.fileno(), str(path), workers)
