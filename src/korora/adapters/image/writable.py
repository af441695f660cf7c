"""One image that QEMU serves to be written, beside being read.

Promise: what was put is on stable storage when `flush` returns, or there is an error. Memory: 32 MiB under
way, and some MiB for each connection. Limit: after an error any part of what was under way may be written.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from korora.adapters.image import nbd, spaces
from korora.adapters.image.export import Export, awaited
from korora.errors import ToolError
from korora.model.image import Extent
from korora.ports.image import Range

T = TypeVar("T")

FLUSHED_WITHIN_S: Final = 3600.0
_AT_ONCE: Final = 32
_ZERO_BYTES: Final = 1 << 30
_FLUSHED_EVERY: Final = 4096  # requests, so that no flush takes as long as the whole
_FULL: Final = {errno.errorcode[one] for one in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)}


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A request, and the memory that it needs meanwhile."""

    cookie: int
    range: Range
    space: spaces.Space | None = None


class WritableExport:
    """Implements `ports.image_writer.WritableImage` over connections to one export, the last to write.

    With a single one, read and write in turn.
    """

    def __init__(self, handles: list[Any]) -> None:
        self._all = tuple(handles)
        self._reading = Export(handles[:-1] or handles)
        self._error: type[Exception] = nbd.library().Error
        self.size = self._reading.size
        self._writer = handles[-1]
        self._under_way: deque[_UnderWay] = deque()
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
        self._make_room()
        space = spaces.take(len(data))
        with self._written(offset, len(data)):
            cookie = self._writer.aio_pwrite(space.filled(data), offset)
        self._begun(_UnderWay(cookie, (offset, len(data)), space))

    def zero(self, offset: int, length: int) -> None:
        self._check(offset, length)
        end = offset + length
        while offset < end:
            part = min(_ZERO_BYTES, end - offset)
            self._make_room()
            with self._written(offset, part):
                cookie = self._writer.aio_zero(part, offset)
            self._begun(_UnderWay(cookie, (offset, part)))
            offset += part

    def read(self, offset: int, length: int) -> bytes:
        return next(iter(self.each([(offset, length)], bytes)))

    def drain(self) -> None:
        while self._under_way:
            self._end_one()

    def flush(self) -> None:
        self.drain()
        with self._written(0, self.size):
            awaited(self._writer, self._writer.aio_flush(), FLUSHED_WITHIN_S)
        self._since_flush = 0

    def leave(self) -> None:
        """All connections are ended in good order: QEMU then closes the image, and goes.

        With nothing under way: who hangs up earlier does not know what became of it.
        """
        self.flush()
        self.close()
        for handle in self._all:
            with self._written(0, self.size):
                handle.shutdown()

    def _check(self, offset: int, length: int) -> None:
        if not 0 <= offset <= offset + length <= self.size:
            raise ToolError(f"the image has no byte {offset + length - 1} to write", kind="unwritable")

    def _make_room(self) -> None:
        if len(self._under_way) >= _AT_ONCE:
            self._end_one()
        if self._since_flush >= _FLUSHED_EVERY:
            self.flush()

    def _begun(self, one: _UnderWay) -> None:
        self._under_way.append(one)
        self._since_flush += 1

    def _end_one(self) -> None:
        one = self._under_way.popleft()
        with self._written(*one.range):
            awaited(self._writer, one.cookie)
        if one.space is not None:
            spaces.give(one.space)

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
