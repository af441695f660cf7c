"""One disk, copied by this daemon while its guest goes on: as it is, or frozen below what the guest writes.

Promise: its leaves are of what is at the destination now; what the guest wrote since the copy began is in the
bitmap that the next `written` tells. Errors are those of `DisksOut.copy`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from itertools import islice
from typing import Final, TypeVar

import structlog

from korora.agents.dataorg.popularity import Popularity
from korora.agents.integrity.disks.gaps import Gaps
from korora.agents.io.copying import WINDOW, Copying, Pace
from korora.agents.io.sharing import Sharing
from korora.errors import ToolError
from korora.migration.crossing.copying.agenda import Agenda
from korora.migration.crossing.disks.unreadable import narrowed
from korora.model.image import NbdExport
from korora.ports.image import ImageReader, OpenImage, Range, Readable, UnreadableError
from korora.ports.moving_disks import NOT_TAKEN, CopyFailedError, DiskThere, MovingDisks
from korora.protocol.content_tree import CHUNK_BYTES
from korora.protocol.dedup.have import AnySaid

T = TypeVar("T")
log = structlog.get_logger("korora.migration")
Ask = Callable[[str, AnySaid], Awaitable[AnySaid]]
"""What the destination says of parts of a disk."""
_NEARER_AT_ONCE: Final = 8 * WINDOW
"""Chunks, between two looks at the room that is left."""


class ByDaemon:
    """The disk `name`, to `there`. `gaps`: parts that have placeholders. `ask`: the destination, about what
    it may have."""

    def __init__(
        self,
        name: str,
        disks: MovingDisks,
        there: DiskThere,
        images: ImageReader,
        pace: Pace,
        *,
        gaps: Gaps | None = None,
        habits: Popularity | None = None,
        ask: Ask | None = None,
    ) -> None:
        self._name = name
        self._disks = disks
        self._there = there
        self._images = images
        self._pace = pace
        self._gaps = gaps
        self._habits = habits
        self._sharing = Sharing(partial(ask, name)) if ask is not None else None
        self._copying = Copying(disks.sizes[name], there, pace, self._sharing)
        self._agenda: Agenda | None = None

    @property
    def done(self) -> int:
        """Bytes."""
        return self._copying.done

    @property
    def total(self) -> int:
        """Bytes that may be more than zeros; nothing before that is known."""
        return self._agenda.bytes if self._agenda is not None else 0

    @property
    def sent_bytes(self) -> int | None:
        """Of a disk that was shared: what the destination had not."""
        return self._sharing.sent_bytes if self._sharing is not None else None

    def taken_leaves(self) -> bytes:
        """Of all of it, once it was copied; they are not kept here."""
        return self._copying.taken_leaves()

    async def copy(self) -> None:
        """While the guest writes to it."""
        async with AsyncExitStack() as open_:
            image = await self._opened(open_, self._disks.written(self._name))
            await self._read(image, self._copying.copy(image, self._order(image)))
        await self._written(asyncio.to_thread(self._there.flush))

    async def copy_frozen(self) -> None:
        """Once it is outsourced: what is read comes nearer, as long as there is room."""
        async with AsyncExitStack() as open_:
            image = await self._opened(open_, self._disks.frozen(self._name))
            nearer = _Nearer(await self._opened(open_, self._disks.nearer(self._name)), image)
            order, before = self._order(image), -1
            while self.done > before and nearer.works and (room := await asyncio.to_thread(self._room)):
                before = self.done
                some = islice(order, min(room, _NEARER_AT_ONCE))
                await self._read(image, self._copying.copy(nearer, some))
            await self._read(image, self._copying.copy(image, order))
        await self._written(asyncio.to_thread(self._there.flush))

    def _order(self, image: OpenImage) -> Iterator[int]:
        self._agenda = Agenda(image, self._habits, self._pace.bytes_per_s)
        return iter(self._agenda)

    def _room(self) -> int:
        """Of chunks, nearer."""
        return self._disks.room_nearer(self._name) // CHUNK_BYTES

    async def _opened(
        self, open_: AsyncExitStack, export: AbstractAsyncContextManager[NbdExport]
    ) -> OpenImage:
        opened = self._images.open_export(await open_.enter_async_context(export))
        image = await asyncio.to_thread(opened.__enter__)
        open_.push_async_callback(asyncio.to_thread, opened.__exit__, None, None, None)  # it waits for reads
        return self._gaps.over(image) if self._gaps is not None else image

    async def _read(self, image: OpenImage, copying: Awaitable[None]) -> None:
        """`image`: where an error is looked for, in blocks smaller than what comes nearer may be read in."""
        try:
            await self._written(copying)
        except UnreadableError as error:
            raise await asyncio.to_thread(narrowed, image, self._name, error) from error

    async def _written(self, work: Awaitable[None]) -> None:
        """What the destination does not take may be told by any request to it, at last by its flush."""
        try:
            await work
        except ToolError as error:
            if error.kind in NOT_TAKEN:
                raise CopyFailedError(self._name, error.message, self.done) from error
            raise


class _Nearer:
    """Implements `ports.image.Readable`: `image`, read through what brings it nearer as long as that works.

    Where the storage for it fails or has no room, QEMU answers the read with that error: the disk is well.
    """

    def __init__(self, nearer: Readable, image: Readable) -> None:
        self._nearer = nearer
        self._image = image
        self.works = True

    def each(self, ranges: Iterable[Range], work: Callable[[memoryview], T]) -> Iterator[T]:
        wanted, done = list(ranges), 0
        if self.works:
            try:
                for made in self._nearer.each(wanted, work):
                    done += 1
                    yield made
            except UnreadableError as error:
                self.works = False
                log.info("nothing more is brought nearer", why=error.message)
        yield from self._image.each(wanted[done:], work)
