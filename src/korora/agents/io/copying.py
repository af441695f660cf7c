"""A disk that this daemon copies: read once, in the order that it is given, hashed and sent (W3, W6).

    read and hash a window of chunks ──▶ send what of it the destination lacks
    └ the next one meanwhile

Promise: every byte is read once, and what is sent is what was hashed; zeros are not sent, for the image there
is new and empty. Memory: three windows, so at most 96 MiB for a disk, and 32 bytes for each MiB of it. Limit:
what is written to it meanwhile is for whoever follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol, TypeVar

from korora.ports.clock import Clock
from korora.ports.image import Range, Readable
from korora.ports.moving_disks import DiskThere
from korora.protocol.content_tree import CHUNK_BYTES, chunks_of, leaf, zeros

T = TypeVar("T")
WINDOW: Final = 32
"""Chunks."""
_GENTLE_WINDOW: Final = 8
GENTLE_BYTES: Final = 128 << 10
"""Of a request, with a gentle pace: on storage that gives 40 MB or 2,000 requests in a second, a guest with
eight under way waits as long for its own as for this one."""
GENTLE_UP_TO: Final = 64 << 20
"""Bytes a second: beyond it storage answers sooner than this process asks."""
_PIECE_BYTES: Final = 64 << 10
_PUT_BYTES: Final = 256 << 10
_ZEROS: Final = bytes(CHUNK_BYTES)
_LEAF_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Taken:
    """A chunk that was read. `content`: None for zeros."""

    chunk: int
    leaf: bytes
    content: bytes | None

    @property
    def offset(self) -> int:
        return self.chunk * CHUNK_BYTES


class Delivery(Protocol):
    """How a window comes to be at the destination."""

    async def __call__(self, window: Sequence[Taken], there: DiskThere) -> None: ...


class Pace:
    """No more bytes in a second than `bytes_per_s`; 0: as they come."""

    def __init__(self, bytes_per_s: int, clock: Clock) -> None:
        self.bytes_per_s = bytes_per_s
        self._clock = clock
        self._free_at = 0.0

    @property
    def gentle(self) -> bool:
        """Whether one request is to be under way at a time."""
        return 0 < self.bytes_per_s <= GENTLE_UP_TO

    async def keep(self, length: int) -> None:
        """Wait until so many bytes may be read. What was not used in time is not used later."""
        if self.bytes_per_s:
            now = self._clock.monotonic()
            begin = max(self._free_at, now)
            self._free_at = begin + length / self.bytes_per_s
            await asyncio.sleep(begin - now)


class Copying:
    """One disk of `size` bytes, to a new and empty image `there`."""

    def __init__(self, size: int, there: DiskThere, pace: Pace, deliver: Delivery | None = None) -> None:
        self._size = size
        self._there = there
        self._pace = pace
        self._deliver = deliver or _sent
        self._leaves = bytearray(zeros(0) * chunks_of(size))
        self.done = 0
        """Bytes that were read and are there."""

    def taken_leaves(self) -> bytes:
        """Of all chunks, of those that were not copied of zeros; given once, for there may be many."""
        leaves, self._leaves = bytes(self._leaves), bytearray()
        return leaves

    async def copy(self, image: Readable, chunks: Iterable[int]) -> None:
        """These chunks, in this order; may be called again for others.

        UnreadableError; ToolError when they cannot be written there; PeerError.
        """
        wanted = iter(chunks)
        window = await self._window(image, wanted)
        while window:
            coming = asyncio.create_task(self._window(image, wanted))
            try:
                await self._deliver(window, self._there)
                self.done += sum(self._length(one.chunk) for one in window)
                window = await coming
            finally:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)

    async def _window(self, image: Readable, wanted: Iterator[int]) -> list[Taken]:
        gentle = self._pace.gentle
        chunks = await _ended(lambda: list(islice(wanted, _GENTLE_WINDOW if gentle else WINDOW)))
        if gentle:
            return [await self._gently(image, chunk) for chunk in chunks]
        await self._pace.keep(sum(map(self._length, chunks)))
        return await _ended(lambda: self._read(image, chunks))

    def _read(self, image: Readable, chunks: Sequence[int]) -> list[Taken]:
        """Blocking."""
        ranges = [(chunk * CHUNK_BYTES, self._length(chunk)) for chunk in chunks]
        made = zip(chunks, image.each(ranges, _hashed), strict=True)
        return [self._noted(Taken(chunk, *one)) for chunk, one in made]

    async def _gently(self, image: Readable, chunk: int) -> Taken:
        """One request at a time, of as much as leaves room for a guest's between two."""
        begin, length = chunk * CHUNK_BYTES, self._length(chunk)
        content = bytearray()
        for at in range(0, length, GENTLE_BYTES):
            part = begin + at, min(GENTLE_BYTES, length - at)
            await self._pace.keep(part[1])
            content += await _ended(lambda wanted=part: next(iter(image.each([wanted], bytes))))  # type: ignore[misc]
        return self._noted(Taken(chunk, *await asyncio.to_thread(_hashed, memoryview(content))))

    def _noted(self, taken: Taken) -> Taken:
        self._leaves[taken.chunk * _LEAF_BYTES : (taken.chunk + 1) * _LEAF_BYTES] = taken.leaf
        return taken

    def _length(self, chunk: int) -> int:
        return min(CHUNK_BYTES, self._size - chunk * CHUNK_BYTES)


def put(there: DiskThere, offset: int, content: bytes) -> None:
    """Blocking: as it is, but for longer stretches of zeros."""
    for at, length in _stretches(content):
        there.put(offset + at, content[at : at + length])


async def _sent(window: Sequence[Taken], there: DiskThere) -> None:
    def send() -> None:
        for one in window:
            if one.content is not None:
                put(there, one.offset, one.content)

    await asyncio.to_thread(send)


def _stretches(content: bytes) -> Iterator[Range]:
    """What is not zeros, in pieces; neighbours together, as far as one request goes."""
    begin = end = 0
    for at in range(0, len(content), _PIECE_BYTES):
        piece = content[at : at + _PIECE_BYTES]
        if piece == _ZEROS[: len(piece)]:
            continue
        if at != end or end - begin >= _PUT_BYTES:
            if end > begin:
                yield begin, end - begin
            begin = at
        end = at + len(piece)
    if end > begin:
        yield begin, end - begin


def _hashed(view: memoryview) -> tuple[bytes, bytes | None]:
    content = bytes(view)
    return leaf(content), None if content == _ZEROS[: len(content)] else content


async def _ended(read: Callable[[], T]) -> T:
    """In a thread, which has ended when this has: what it reads is closed then."""
    reading = asyncio.ensure_future(asyncio.to_thread(read))
    try:
        return await asyncio.shield(reading)
    except asyncio.CancelledError:
        await asyncio.gather(reading, return_exceptions=True)
        raise
