"""One image that QEMU serves to be written, beside being read.

Promise: what was put is on stable storage when `flush` returns, or there is an error. Memory: 32 MiB under
way, and some MiB for each connection. Limit: after an error any part of what was under way may be written.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from korora.adapters.image import nbd
from korora.adapters.image.export import Export, awaited
from korora.errors import ToolError
from korora.model.image import Extent
from korora.ports.image import Range

T = TypeVar("T")

FLUSHED_WITHIN_S: Final = 3600.0
_AT_ONCE_BYTES: Final = 32 << 20
_ZERO_BYTES: Final = 1 << 30
_ZERO_COUNTS_BYTES: Final = 1 << 20  # a run of zeros under way holds no memory, yet they are not endless
_FLUSHED_EVERY_BYTES: Final = 512 << 20  # so that no flush takes as long as the whole
_FULL: Final = {errno.errorcode[one] for one in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)}


class WritableExport:
    """Implements `ports.image_writer.WritableImage` over connections to one export, the last to write."""

    def __init__(self, handles: list[Any]) -> None:
        self._all = tuple(handles)
        self._reading = Export(handles[:-1])
        self._error: type[Exception] = nbd.library().Error
        self.size = self._reading.size
        self._writer = handles[-1]
        self._under_way: deque[tuple[int, Range, int]] = deque()
        self._bytes = 0
        self._since_flush = 0

    def extents(self, offset: int = 0) -> Iterator[Extent]:
        return self._reading.extents(offset)

    def written(self) -> Iterator[Range]:
        return self._reading.written()

    def each(self, ranges: Iterable[Range], work: Callable[[memoryview], T]) -> Iterator[T]:
        return self._reading.each(ranges, work)

    def close(self) -> None:
        self._reading.close()

    def put(self, offset: int, data: bytes) -> None:
        self._check(offset, len(data))
        self._make_room(len(data))
        with self._written(offset, len(data)):
            cookie = self._writer.aio_pwrite(nbd.library().Buffer.from_buffer(data), offset)
        self._begun(cookie, (offset, len(data)), len(data))

    def zero(self, offset: int, length: int) -> None:
        self._check(offset, length)
        end = offset + length
        while offset < end:
            part = min(_ZERO_BYTES, end - offset)
            self._make_room(_ZERO_COUNTS_BYTES)
            with self._written(offset, part):
                cookie = self._writer.aio_zero(part, offset)
            self._begun(cookie, (offset, part), _ZERO_COUNTS_BYTES)
            offset += part

    def flush(self) -> None:
        while self._under_way:
            self._end_one()
        with self._written(0, self.size):
            awaited(self._writer, self._writer.aio_flush(), FLUSHED_WITHIN_S)
        self._since_flush = 0

    def leave(self) -> None:
        """All connections are ended in good order: QEMU then closes the image, and goes."""
        self.close()
        for handle in self._all:
            with self._written(0, self.size):
                handle.shutdown()

    def _check(self, offset: int, length: int) -> None:
        if not 0 <= offset <= offset + length <= self.size:
            raise ToolError(f"the image has no byte {offset + length - 1} to write", kind="unwritable")

    def _make_room(self, needed: int) -> None:
        while self._bytes + needed > _AT_ONCE_BYTES:
            self._end_one()
        if self._since_flush > _FLUSHED_EVERY_BYTES:
            self.flush()

    def _begun(self, cookie: int, one: Range, counts: int) -> None:
        self._under_way.append((cookie, one, counts))
        self._bytes += counts
        self._since_flush += counts

    def _end_one(self) -> None:
        cookie, one, counts = self._under_way.popleft()
        self._bytes -= counts
        with self._written(*one):
            awaited(self._writer, cookie)

    @contextmanager
    def _written(self, offset: int, length: int) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            full = getattr(error, "errno", None) in _FULL
            raise ToolError(
                f"bytes {offset} to {offset + length} of the image cannot be written: {error}",
                kind="image-full" if full else "unwritable",
                remedy="make room where the image lies" if full else "the storage below it fails",
            ) from error
