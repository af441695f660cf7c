"""The destination's end of the disks that cross: what comes is written, supplied from what is here, measured.

Promise: nothing that came is believed; the roots are of what lies in this host's own images.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from korora.agents.dataplane import DestinationRelay
from korora.errors import KororaError, PeerError, ToolError
from korora.migration.crossing.copying.supplying import Supplying
from korora.migration.crossing.disks.crossed import Crossed, reports_of
from korora.migration.crossing.disks.measuring import Measuring
from korora.ports.image import ImageReader
from korora.ports.moving_disks import MovingDisks


class DisksIn:
    """The destination's end. Its images are new and empty, or of an earlier visit."""

    def __init__(
        self,
        disks: MovingDisks,
        relays: Sequence[DestinationRelay],
        images: ImageReader,
        supplying: Supplying | None = None,
    ) -> None:
        self._disks = disks
        self._relays = relays
        self._measuring = Measuring(disks, images)
        self._supplying = supplying

    async def open(self) -> None:
        """Take what comes."""
        await self._disks.receive()
        for relay in self._relays:
            relay.start()

    async def leaves(self, name: str) -> bytes:
        """Of one of an earlier visit, before anything comes."""
        return await self._measuring.leaves(name)

    async def grains(self, name: str, chunks: Sequence[int]) -> list[bytes]:
        """Of these chunks of it."""
        return await self._measuring.grains(name, chunks)

    async def answer(self, name: str, said: bytes) -> bytes:
        """What this host has of a disk that comes: docs/protocol/deduplication.md. PeerError where nobody
        was to ask."""
        if self._supplying is None or name not in self._disks.sizes:
            raise PeerError(f"the source asks what is here of {name}, unasked", kind="out-of-order")
        return await self._supplying.answer(name, said)

    def measure_meanwhile(self) -> None:
        """What has come, while more does: less is left to do once all of it is here."""
        self._measuring.keep()

    async def settle(self) -> None:
        """Once the source says that they are the same here."""
        await self._supplied()
        await self._measuring.settle()
        self._measuring.keep()

    async def _supplied(self) -> None:
        if self._supplying is not None:
            await self._supplying.close()

    async def arrived(self) -> Crossed:
        """Once the source has hung up, with the VM paused there."""
        reports = await reports_of(self._relays)
        contents = await self._measuring.contents()
        await self._disks.end()
        return Crossed(contents, reports)

    async def broken(self) -> None:
        """Raise what changed on the way, or that the source fell silent, as soon as this side knows; never
        returns otherwise: a source that left says why."""

        async def watched(relay: DestinationRelay) -> None:
            try:
                await relay.finished()
            except PeerError as lost:
                if lost.kind == "stalled":
                    raise
            except ToolError:
                return

        await asyncio.gather(*(watched(relay) for relay in self._relays))
        await asyncio.Event().wait()

    async def abandon(self, why: str) -> None:
        """Idempotent. The images are left to whoever removes the VM's folder."""
        for relay in self._relays:
            await asyncio.to_thread(relay.abort, why)
        with suppress(KororaError):  # its hypervisor may be gone
            await self._supplied()
        await self._measuring.stop()
        with suppress(KororaError):  # its hypervisor ends, too
            await self._disks.end()
