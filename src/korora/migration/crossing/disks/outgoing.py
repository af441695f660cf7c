"""Disks that cross with their VM: each over a data connection of its own, sealed like its memory.

    copy, while the guest writes → measure, on both sides → (memory crosses) → the VM is paused
    → cut: the same on both sides → measure what was written last → compared in the manifest

A mirror is QEMU's. What this daemon copies it reads once, hashes, and sends what the destination has not
(`copying`, `sharing`); of a disk with an earlier content there, hashes are compared, and the rest is sent.
Then whatever is written is sent as it is measured (`measuring`).
Promise: `abandon`, at any moment before the release, leaves the source's disks as the guest left them, also
where it wrote elsewhere meanwhile.
Limit: what the guest writes to its disks faster than the network carries it is written there in the pause.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from korora.agents.dataorg import comparing
from korora.agents.dataplane import RelayReport, SourceRelay
from korora.agents.integrity.disks.gaps import Gaps
from korora.agents.io.copying import Pace
from korora.errors import IntegrityError, KororaError, PeerError, ToolError
from korora.migration.crossing.copying.by_daemon import Ask, ByDaemon
from korora.migration.crossing.disks.behind import Behind
from korora.migration.crossing.disks.crossed import Crossed, reports_of
from korora.migration.crossing.disks.manner import Manner
from korora.migration.crossing.disks.measuring import Measuring
from korora.migration.crossing.disks.unreadable import found
from korora.model.meter import Reading
from korora.ports.clock import Clock
from korora.ports.image import ImageReader, Range
from korora.ports.moving_disks import CopyFailedError, DiskThere, MovingDisks

_LOOKS_EVERY_S: Final = 0.1
_REASON_S: Final = 2.0
_FIRST_HAND: Final = {"replacement-full", "disk-unreadable", "disk-written", "disk-changed"}
"""Seen on this host's own storage: no other reason is nearer."""

Read = Callable[[Reading], Awaitable[None]]
Grains = Callable[[str, Sequence[int]], Awaitable[Sequence[bytes]]]
"""What the destination says of these chunks of a disk."""
COMPARED_AT_ONCE: Final = 256
"""Chunks, whose grains are 1 MiB."""


class DisksOut:
    """The source's end. `relays`: one for each disk, by name, with the socket that it listens on. `gaps`: of
    disks of which a part cannot be read, and may move as a placeholder."""

    def __init__(
        self,
        disks: MovingDisks,
        relays: Mapping[str, tuple[SourceRelay, Path]],
        images: ImageReader,
        clock: Clock,
        gaps: Mapping[str, Gaps] | None = None,
    ) -> None:
        self._disks = disks
        self._relays = relays
        self._images = images
        self._clock = clock
        self._gaps = gaps or {}
        self._follows = False
        self._measuring = Measuring(disks, images, self._gaps)
        self._behind = Behind()
        self._there: dict[str, DiskThere] = {}
        self._copying: dict[str, ByDaemon] = {}

    async def copy(
        self, manner: Manner, read: Read, kept: Collection[str] = (), ask: Ask | None = None
    ) -> None:
        """Until all but those that are `kept` there are the same there. `ask`: the destination, about what it
        may have of those that this daemon copies.

        CopyFailedError, DiskUnreadableError, or what broke the connection.
        """
        copying: list[asyncio.Task[None]] = []
        relaying: list[asyncio.Task[RelayReport]] = []
        pace = Pace(manner.cap_bytes_per_s, self._clock)  # of all of them together: they may share storage
        try:
            for name, (relay, socket) in self._relays.items():
                relay.start()
                if name not in kept and name not in self._gaps and manner.mirrored:
                    await self._disks.mirror(name, socket, manner.cap_bytes_per_s)
                    continue
                self._there[name] = await self._disks.reach(name, socket)
                relaying.append(asyncio.create_task(relay.finished()))
                if name not in kept:
                    copying.append(await self._begun(name, manner, pace, ask))
            if not self._there:
                self._measuring.keep(self._behind)
            while await self._copied(copying, read):
                _refuse_lost(relaying)
                await asyncio.sleep(_LOOKS_EVERY_S)
        except ToolError as error:
            raise await self._why(error) from error
        finally:
            for task in (*copying, *relaying):
                task.cancel()
            await asyncio.gather(*copying, *relaying, return_exceptions=True)
        for name, one in self._copying.items():
            self._measuring.adopt(name, one.taken_leaves(), self._there[name])
        self._behind.copied()
        self._follows = True

    async def _begun(self, name: str, manner: Manner, pace: Pace, ask: Ask | None) -> asyncio.Task[None]:
        gaps, habits = self._gaps.get(name), manner.habits.get(name)
        copying = self._copying[name] = ByDaemon(
            name, self._disks, self._there[name], self._images, pace, gaps=gaps, habits=habits, ask=ask
        )
        if manner.replacement is None or gaps is not None:
            return asyncio.create_task(copying.copy())
        await self._disks.outsource(name, manner.replacement)
        return asyncio.create_task(copying.copy_frozen())

    @property
    def sent_bytes(self) -> dict[str, int]:
        """Of each disk that was shared with the destination: what it had not."""
        told = {name: one.sent_bytes for name, one in self._copying.items()}
        return {name: sent for name, sent in told.items() if sent is not None}

    async def _copied(self, copying: Collection[asyncio.Task[None]], read: Read) -> bool:
        """Whether something is still to be copied."""
        ended = [task for task in copying if task.done()]
        for task in ended:
            task.result()
        self._measuring.refuse_failed()
        copied = await self._disks.copied()
        self._behind.reached(copied.read)
        if copied.ready and len(ended) == len(copying):
            return False
        done = copied.done + sum(one.done for one in self._copying.values())
        total = copied.total + sum(one.total for one in self._copying.values())
        await read(Reading(self._clock.monotonic(), done, max(total - done, 0), 0.0, 0))
        return True

    async def failed(self) -> None:
        """Raise as `copy`, as soon as what the guest writes does not follow any more; returns at the cut."""
        while self._follows:
            try:
                await self._disks.copied()
            except ToolError as error:
                if self._follows:
                    raise await self._why(error) from error
            await asyncio.sleep(_LOOKS_EVERY_S)

    async def leaves(self) -> dict[str, bytes]:
        """Of those that are kept there."""
        kept = self._there.keys() - self._copying.keys()
        return {name: await self._measuring.leaves(name, followed=True) for name in sorted(kept)}

    async def send_changes(self, name: str, here: bytes, there: bytes, grains: Grains) -> int:
        """Make a disk that is kept there the same there, by the leaves of both. How many bytes were sent."""
        size = self._disks.sizes[name]
        try:
            chunks = comparing.differing(here, there)
            ranges: list[Range] = []
            for some in (
                chunks[at : at + COMPARED_AT_ONCE] for at in range(0, len(chunks), COMPARED_AT_ONCE)
            ):
                ours, theirs = await asyncio.gather(self._measuring.grains(name, some), grains(name, some))
                for chunk, mine, other in zip(some, ours, theirs, strict=True):
                    ranges += comparing.blocks(comparing.span(chunk, size), mine, other)
        except ValueError as error:
            raise PeerError(
                f"the hashes of the disk {name} do not fit together: {error}", kind="bad-hashes"
            ) from error
        try:
            return await self._measuring.follow(name, ranges, self._there[name])
        except ToolError as error:
            raise await _why(error, [self._relays[name][0]]) from error

    async def settle(self) -> None:
        await self._measuring.settle()
        self._measuring.keep()

    async def cut(self) -> Crossed:
        """With the VM paused: the same on both sides, and measured. Nothing is served any more."""
        relays = [relay for relay, _ in self._relays.values()]
        self._follows = False
        try:
            await self._disks.cut()
            # Of what is followed, to measure is to send the rest.
            contents = await self._measuring.contents() if self._there else ()
            for there in self._there.values():
                await asyncio.to_thread(there.leave)
        except ToolError as error:
            raise await _why(error, relays) from error
        if self._there:
            reports = await reports_of(relays)
        else:
            contents, reports = await asyncio.gather(self._measuring.contents(), reports_of(relays))
        await self._disks.stand_by()
        return Crossed(contents, reports)

    async def _why(self, error: ToolError) -> KororaError:
        nearer = await _why(error, [relay for relay, _ in self._relays.values()])
        await self._measuring.stop()  # it may have the disk open by the name that is looked at
        if not isinstance(nearer, CopyFailedError) or nearer.disk in self._there:
            return nearer
        return await found(self._disks, self._images, nearer)

    async def abandon(self, why: str) -> None:
        """Undo: the disks are the guest's alone, with all that it wrote. Idempotent."""
        self._follows = False
        for relay, _ in self._relays.values():
            await asyncio.to_thread(relay.abort, why)
        await self._measuring.stop()
        await self._disks.end()


def _refuse_lost(relaying: Sequence[asyncio.Task[RelayReport]]) -> None:
    """What broke a connection: who waits for an answer, and writes nothing meanwhile, would not notice."""
    for one in relaying:
        if one.done() and isinstance(lost := one.exception(), (IntegrityError, PeerError)):
            raise lost


async def _why(error: ToolError, relays: Sequence[SourceRelay]) -> KororaError:
    """The data plane's reason, if it has one: the hypervisor only knows that a connection broke.

    Of several that are told at once, what was changed on the way comes first.
    """
    if error.kind in _FIRST_HAND:
        return error
    waiting = {asyncio.ensure_future(relay.finished()) for relay in relays}
    try:
        async with asyncio.timeout(_REASON_S):
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                told = [why for why in map(_failure, done) if isinstance(why, (IntegrityError, PeerError))]
                if told:
                    return min(told, key=lambda why: isinstance(why, PeerError))
    except TimeoutError:
        pass
    finally:
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    return error


def _failure(ended: asyncio.Future[RelayReport]) -> BaseException | None:
    return None if ended.cancelled() else ended.exception()
