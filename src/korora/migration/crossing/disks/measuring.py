"""The content trees of disks that are still written to, on either side of a move.

While a disk comes, what has come of it is measured already, so that little is left when all of it is there.
Promise: `contents` is of the disks as they are when nobody writes to them any more; what is left to be
measured then is what was written in about the last second. A disk that is followed (W2) is written at the
other side as it is measured: what differs there once, and from then on what is written here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Final, TypeVar

from korora.agents.dataorg import comparing
from korora.agents.integrity.disks.gaps import Gaps
from korora.agents.integrity.disks.settling import Settling
from korora.errors import ToolError
from korora.migration.crossing.disks.behind import Behind, Paced
from korora.migration.crossing.disks.following import merged, send
from korora.migration.crossing.disks.unreadable import narrowed
from korora.model.image import NbdExport
from korora.model.storage import DiskContent
from korora.ports.image import ImageReader, OpenImage, Range, UnreadableError
from korora.ports.moving_disks import NOT_TAKEN, CopyFailedError, DiskThere, MovingDisks

T = TypeVar("T")
FEW_PIECES: Final = 512
"""That take some ten milliseconds to measure."""
ROUNDS_MAX: Final = 6
"""A guest that writes faster than it is measured is not waited for: its pause takes longer."""
EVERY_S: Final = 0.5


class Measuring:
    """Of all `disks` that move. Its methods raise DiskUnreadableError when one cannot be read, but for its
    `gaps`, which have placeholders."""

    def __init__(
        self, disks: MovingDisks, images: ImageReader, gaps: Mapping[str, Gaps] | None = None
    ) -> None:
        self._disks = disks
        self._images = images
        self._gaps = gaps or {}
        self._settling: Mapping[str, Settling] = {name: Settling(size) for name, size in disks.sizes.items()}
        self._there: dict[str, DiskThere] = {}
        self._begun: set[str] = set()
        self._owed: dict[str, list[Range]] = {}
        self._keeping: asyncio.Task[None] | None = None
        self._behind: Behind | None = None
        self._enough = asyncio.Event()

    async def leaves(self, name: str, *, followed: bool = False) -> bytes:
        """Of one disk, measured. `followed`: it will be, so what is written meanwhile is owed."""
        if followed:
            self._owed.setdefault(name, [])
        await self._measured(name, _nothing)
        return self._settling[name].leaves()

    def adopt(self, name: str, leaves: bytes, there: DiskThere) -> None:
        """It was copied, as it was when the last `written` was begun, and these are its leaves: what was
        written since is sent whenever it is measured. ValueError unless they are of a disk of its size."""
        self._settling[name].adopt(leaves)
        self._begun.add(name)
        self._there[name] = there

    async def grains(self, name: str, chunks: Sequence[int]) -> list[bytes]:
        """Of these chunks of a disk whose leaves are known."""
        spans = [comparing.span(chunk, self._disks.sizes[name]) for chunk in chunks]
        return (await self._measured(name, lambda image: list(image.each(spans, comparing.grains))))[1]

    async def follow(self, name: str, differ: Sequence[Range], there: DiskThere) -> int:
        """Bytes sent: these ranges of a disk whose leaves are known, which differ, or may by now.

        What was written since they were measured, and ever after, is sent whenever it is measured.
        """
        self._there[name] = there
        return (await self._measured(name, lambda image: send(image, differ, there)))[1]

    async def settle(self) -> None:
        """All of them once, and again until little is written meanwhile."""
        await self._kept()
        before = await self._once()
        for _ in range(ROUNDS_MAX):
            count = await self._once()
            if count <= FEW_PIECES or count >= before:
                return
            before = count

    def keep(self, behind: Behind | None = None) -> None:
        """Go on in the background, so that `settle` or `contents` finds little to do. `behind`: a copy that
        reads the disks, as far as it has, until it ends."""
        self._behind = behind
        self._enough.clear()
        self._keeping = asyncio.create_task(self._keep())

    async def contents(self) -> tuple[DiskContent, ...]:
        """With nobody writing."""
        await self._kept()
        await self._once()
        sizes = self._disks.sizes
        found = await asyncio.to_thread(lambda: {name: one.root() for name, one in self._settling.items()})
        return tuple(DiskContent(name, sizes[name], root) for name, root in found.items())

    def refuse_failed(self) -> None:
        """Raise what `keep` has met."""
        if self._keeping is not None and self._keeping.done():
            self._keeping.result()

    async def stop(self) -> None:
        """Before the disks are let go of. What `keep` met is not raised."""
        if self._behind is not None:
            self._behind.stop()
        with suppress(Exception):
            await self._kept()

    async def _kept(self) -> None:
        self._enough.set()
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            await keeping

    async def _keep(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._enough.wait(), EVERY_S)
                return
            await self._once()

    async def _once(self) -> int:
        count = 0
        for name in self._settling:
            count += (await self._measured(name, _nothing))[0]
        return count

    async def _measured(self, name: str, also: Callable[[OpenImage], T]) -> tuple[int, T]:
        """How many pieces were read, and what `also` made of the disk."""
        async with self._disks.written(name) as export:
            if self._behind is None or name in self._begun:
                return await asyncio.to_thread(self._measure, name, export, also)
            own = ThreadPoolExecutor(1, "behind")  # it may wait long, and others need the threads there are
            try:
                work = own.submit(self._measure, name, export, also, self._behind)
                return await asyncio.wrap_future(work)
            finally:
                own.shutdown(wait=False)

    def _measure(
        self, name: str, export: NbdExport, also: Callable[[OpenImage], T], behind: Behind | None = None
    ) -> tuple[int, T]:
        with self._opened(name, export) as image:
            count = self._settling[name].measure(_paced(name, image, export, behind))
            self._follow(name, image)
            self._begun.add(name)
            return count, also(image)

    @contextmanager
    def _opened(self, name: str, export: NbdExport) -> Iterator[OpenImage]:
        """With placeholders for its gaps."""
        with self._images.open_export(export) as opened:
            image = self._gaps[name].over(opened) if name in self._gaps else opened
            try:
                yield image
            except UnreadableError as error:
                raise narrowed(image, name, error) from error
            except ToolError as error:
                if error.kind in NOT_TAKEN:
                    raise CopyFailedError(name, error.message) from error
                raise

    def _follow(self, name: str, image: OpenImage) -> None:
        """Send what was written, or owe it: each bitmap tells of it once."""
        if name not in self._there and name not in self._owed:
            return
        written = list(image.written()) if name in self._begun else []
        ranges = merged([*self._owed.pop(name, ()), *written])
        if name in self._there:
            send(image, ranges, self._there[name])
        else:
            self._owed[name] = ranges


def _paced(name: str, image: OpenImage, export: NbdExport, behind: Behind | None) -> OpenImage:
    """What does not come from the host's cache is read once the copy has no more need of the storage."""
    if behind is None:
        return image
    in_cache = export.file is not None
    return Paced(image, lambda end: behind.wait_for(name, end if in_cache else None))


def _nothing(image: OpenImage) -> None:
    """Measured it is anyway."""
