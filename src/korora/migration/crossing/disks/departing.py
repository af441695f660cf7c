"""The disks that a VM takes along, as its source lives it: ordered, compared or copied, the same there.

Promise: until `copy` begins nothing is touched; from then on `undo` leaves the disks as the guest left them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from korora.agents.dataplane import SourceRelay
from korora.errors import PeerError
from korora.migration.crossing.copying.asking import Asking
from korora.migration.crossing.disks import storage
from korora.migration.crossing.disks.crossed import Crossed
from korora.migration.crossing.disks.keeping import hear_leaves
from korora.migration.crossing.disks.manner import MIRRORED, manner_of
from korora.migration.crossing.disks.outgoing import DisksOut
from korora.migration.crossing.disks.unreadable import flagged, gaps_of
from korora.migration.crossing.subject import Subject
from korora.migration.crossing.vigil import SYMPTOMS, while_watching
from korora.migration.greeting.conversation import WORK_DEADLINE_S, Conversation
from korora.migration.setting import Setting
from korora.migration.teller import Teller
from korora.model.storage import DiskOrder, DisksAsked
from korora.ports.moving_disks import MovingDisks
from korora.protocol import messages

T = TypeVar("T")
Relay = Callable[[Path, int], SourceRelay]
"""What carries a disk from that socket: the first one, the second one, …"""


class Departing:
    """Those of one move; none at all before `choose`."""

    def __init__(self, at: Setting, vm: Subject, asked: DisksAsked, tell: Teller) -> None:
        self._at = at
        self._vm = vm
        self._asked = asked
        self._tell = tell
        self._kept: tuple[str, ...] = ()  # the destination has an earlier content of them, or a part
        self._shared = False  # it may have parts of the others
        self._out: DisksOut | None = None
        self.orders: tuple[DiskOrder, ...] = ()

    async def choose(self) -> tuple[DiskOrder, ...]:
        """As `storage.chosen`."""
        self.orders = await storage.chosen(self._at, self._vm, self._asked)
        return self.orders

    def heard(self, said: messages.Open) -> None:
        """What the destination has. PeerError(kind="bad-hashes") for what it cannot have."""
        ordered = {disk.name for disk in self.orders}
        if len(set(said.kept)) < len(said.kept) or not ordered.issuperset(said.kept):
            raise PeerError("the destination tells of kept disks that do not move", kind="bad-hashes")
        compared = {disk.name for disk in self.orders if self._asked.incremental or disk.keeps_backing}
        if not compared.issuperset(said.kept):
            raise PeerError("the destination compares hashes, and nobody asked for it", kind="bad-hashes")
        self._kept, self._shared = said.kept, said.shares

    async def copy(self, talk: Conversation, relay: Relay, undo: AsyncExitStack) -> None:
        """Until both sides have measured them, and little is written meanwhile."""
        if self.orders:
            with flagged(self._at, self._vm, self._sizes):
                await self._copied(talk, relay, undo)

    async def cut(self, talk: Conversation) -> Crossed | None:
        """With the VM paused: the same on both sides. None where no disk moves."""
        if self._out is None:
            return None
        with flagged(self._at, self._vm, self._sizes):
            crossed = await self._watching(talk, self._out.cut())
        contents = storage.as_moved(crossed.contents, self._vm.definition, self.orders)
        return replace(crossed, contents=contents)

    async def failed(self) -> None:
        """Raise why what is written does not follow any more; no news otherwise."""
        if self._out is not None:
            await self._out.failed()

    async def _copied(self, talk: Conversation, relay: Relay, undo: AsyncExitStack) -> None:
        disks, folder = await self._moving(), self._at.guests.directory(self._vm.definition.name)
        relays = {}
        for number, disk in enumerate(self.orders):
            socket = folder / f"disk{number}.sock"
            relays[disk.name] = relay(socket, number), socket
        gaps = {name: gap for name, gap in gaps_of(self._at, self._vm).items() if name in relays}
        out = self._out = DisksOut(disks, relays, self._at.images, self._at.clock, gaps)
        undo.push_async_callback(out.abandon, "the migration stopped")
        if self._kept:
            await self._send_changes(talk, out, disks.sizes)
        elif gaps:
            await self._watching(talk, out.copy(MIRRORED, self._tell.read))
        else:
            await self._copy_as_storage_bears(talk, out, disks)
        for name, gap in gaps.items():
            await self._tell.note(
                f"{name}: {gap.bytes} bytes cannot be read; placeholders stand for them there"
            )
        await self._settle(talk, out)

    async def _settle(self, talk: Conversation, out: DisksOut) -> None:
        await talk.say(messages.Copied())
        there = asyncio.Event()

        async def listen() -> None:
            await talk.expect(messages.Measured, None)
            there.set()
            await talk.listen_for_abort()

        await while_watching(out.settle(), listen(), out.failed(), symptoms=SYMPTOMS)
        if not there.is_set():
            await talk.expect(messages.Measured, None)

    async def _copy_as_storage_bears(self, talk: Conversation, out: DisksOut, disks: MovingDisks) -> None:
        choosing = manner_of(self._at, self._vm, self._asked, disks, self._tell, shares=self._shared)
        manner = await self._watching(talk, choosing)
        if manner.mirrored or not self._shared:
            await self._watching(talk, out.copy(manner, self._tell.read))
            return
        asking = Asking(talk)
        copying = out.copy(manner, self._tell.read, ask=asking.ask)
        await while_watching(copying, asking.listen(), symptoms=SYMPTOMS)
        for name, sent in out.sent_bytes.items():
            await self._tell.note(
                f"{name}: {sent} of {disks.sizes[name]} bytes were neither there already nor zeros"
            )

    async def _send_changes(self, talk: Conversation, out: DisksOut, sizes: Mapping[str, int]) -> None:
        """Of the disks that are kept there, measured on both sides at once; the others are copied."""
        kept = {name: sizes[name] for name in self._kept}
        hearing = asyncio.create_task(hear_leaves(talk, kept))

        async def listen() -> None:
            await asyncio.shield(hearing)
            await talk.listen_for_abort()

        async def measure() -> dict[str, bytes]:
            await out.copy(MIRRORED, self._tell.read, self._kept)
            return await out.leaves()

        try:
            here = await while_watching(measure(), listen(), symptoms=SYMPTOMS)
            there = await hearing
        finally:
            hearing.cancel()

        async def grains(disk: str, chunks: Sequence[int]) -> Sequence[bytes]:
            await talk.say(messages.Compare(disk, tuple(chunks)))
            return (await talk.expect(messages.Grains, WORK_DEADLINE_S)).chunks

        for name in kept:
            sent = await out.send_changes(name, here[name], there[name], grains)
            await self._tell.note(f"{name}: {sent} of {sizes[name]} bytes differed from what was there")

    async def _moving(self) -> MovingDisks:
        names = [disk.name for disk in self.orders]
        if self._vm.live is not None:
            return await self._vm.live.machine.moving_disks(names)
        vm = self._vm.definition
        disks, folder = storage.moving(vm, names), self._at.guests.directory(vm.name)
        return await self._at.hypervisor.disks_at_rest(disks, folder, writable=False)

    async def _watching(self, talk: Conversation, work: Coroutine[Any, Any, T]) -> T:
        return await while_watching(work, talk.listen_for_abort(), self.failed(), symptoms=SYMPTOMS)

    @property
    def _sizes(self) -> dict[str, int]:
        return {disk.name: disk.size for disk in self.orders}
