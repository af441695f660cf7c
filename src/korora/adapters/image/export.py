"""One image that QEMU serves, read over several connections at once.

Promise: bytes are those that QEMU answered with, in the order that was asked for; what it refuses, or does
not answer in time, is an error. Memory: some MiB for each connection.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeVar

from korora.adapters.image import nbd, spaces
from korora.errors import ToolError
from korora.model.image import Extent
from korora.ports.image import Range, UnreadableError

T = TypeVar("T")
ANSWERS_WITHIN_S: Final = 120.0
_BATCH: Final = 16
_AT_ONCE: Final = 4  # ranges of one connection
_REQUEST_BYTES: Final = 1 << 20  # as long as a chunk: each request costs QEMU and us a turn
_STATUS_BYTES: Final = 1 << 31
ALLOCATION: Final = "base:allocation"
_ZERO: Final = 2  # NBD_STATE_ZERO
_DIRTY: Final = 1  # of QEMU's bitmaps (docs/interop/nbd.txt in QEMU's sources)
_DAMAGED: Final = "the storage below it fails, or the image is damaged there; nothing is said of it"


def bitmap_context(bitmap: str) -> str:
    """How QEMU's NBD server calls what a bitmap says."""
    return f"qemu:dirty-bitmap:{bitmap}"


def awaited(handle: Any, cookie: int, within_s: float | None = None) -> None:
    """Until the request is answered. ToolError(kind="image-timeout") when it is not within `within_s`, by
    default ANSWERS_WITHIN_S."""
    within_s = ANSWERS_WITHIN_S if within_s is None else within_s
    deadline = time.monotonic() + within_s
    while not handle.aio_command_completed(cookie):
        if time.monotonic() > deadline:
            raise ToolError(f"QEMU gave no answer for {within_s:.0f} s", kind="image-timeout")
        handle.poll(1000)


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A range that is being read into `space`, by these requests."""

    range: Range
    space: spaces.Space
    cookies: list[int]


class Export:
    """Implements `ports.image.OpenImage` over connections to one export."""

    def __init__(
        self,
        handles: list[Any],
        remedy: str = _DAMAGED,
        bitmap: str = "",
        *,
        snapshot: bool = False,
    ) -> None:
        """`remedy`: of an error, what whoever reads may do about it. The others: as of an NbdExport."""
        self._bitmap = bitmap
        self._handles = handles
        self._snapshot = snapshot
        self._flags = min(nbd.in_one_piece(handle) for handle in handles)
        self._remedy = remedy
        self._error: type[Exception] = nbd.library().Error
        self._thread = threading.local()
        self._free = deque(handles)
        self._workers = ThreadPoolExecutor(len(handles), "image", initializer=self._take_handle)
        with self._translated(0, 0):
            self.size: int = handles[0].get_size()

    def close(self) -> None:
        self._workers.shutdown(cancel_futures=True)
        self._handles.clear()

    def _take_handle(self) -> None:
        self._thread.handle = self._free.popleft()

    def extents(self, offset: int = 0) -> Iterator[Extent]:
        if not self._handles[0].can_meta_context(ALLOCATION):
            if offset < self.size:
                yield Extent(offset, self.size - offset, zero=False)
            return
        for begin, length, flags in self._status(ALLOCATION, offset):
            yield Extent(begin, length, bool(flags & _ZERO))

    def written(self) -> Iterator[Range]:
        if not self._bitmap:
            yield from [(0, self.size)] * bool(self.size)
            return
        if not self._handles[0].can_meta_context(bitmap_context(self._bitmap)):
            raise ToolError(f"QEMU does not show the bitmap {self._bitmap}", kind="unreadable")
        for begin, length, flags in self._status(bitmap_context(self._bitmap), 0):
            if flags & _DIRTY:
                yield begin, length

    def _status(self, context: str, offset: int) -> Iterator[tuple[int, int, int]]:
        """(offset, length, flags) without gaps, as the server describes it in this context."""
        handle = self._handles[0]
        while offset < self.size:
            said: list[int] = []
            length = min(_STATUS_BYTES, self.size - offset)
            with self._translated(offset, length):
                cookie = handle.aio_block_status(
                    length,
                    offset,
                    lambda told, _offset, entries, _error, into=said: (
                        into.extend(entries if told == context else ()) or 0
                    ),
                )
                awaited(handle, cookie)
            begun = offset
            for length, flags in zip(said[::2], said[1::2], strict=True):
                end = min(offset + length, self.size)
                yield offset, end - offset, flags
                offset = end
            if offset <= begun:
                raise ToolError(f"QEMU does not say what is at byte {offset}", kind="unreadable")

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
                under_way.append(self._begun(wanted))
            if not under_way:
                return made
            one = under_way.popleft()
            made.append(work(self._ended(one)))
            spaces.give(one.space)

    def _begun(self, wanted: Range) -> _UnderWay:
        """Of a snapshot no request goes beyond one piece."""
        offset, length = wanted
        most = nbd.SNAPSHOT_BYTES if self._snapshot else _REQUEST_BYTES
        first = min(length, most - offset % most if self._snapshot else most)
        space, handle, cookies = spaces.take(length), self._thread.handle, list[int]()
        with self._translated(offset, length):
            for at, part in space.requests(length, first, most):
                cookies.append(handle.aio_pread(part, offset + at, flags=self._flags))
        return _UnderWay(wanted, space, cookies)

    def _ended(self, one: _UnderWay) -> memoryview:
        with self._translated(*one.range):
            for cookie in one.cookies:
                awaited(self._thread.handle, cookie)
        return one.space.view(one.range[1])

    @contextmanager
    def _translated(self, offset: int, length: int) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            raise UnreadableError(
                f"bytes {offset} to {offset + length} of the disk cannot be read: {error}",
                (offset, length),
                remedy=self._remedy,
                unserved=self._is_cut_off(),
            ) from error

    def _is_cut_off(self) -> bool:
        """Without the flag of `nbd.in_one_piece` QEMU hangs up over what it cannot read, too."""
        return bool(self._flags) and any(handle.aio_is_dead() for handle in self._handles)
