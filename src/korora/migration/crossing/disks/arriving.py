"""The disks that come with a VM, as its destination lives it: made or taken, filled, measured, learnt.

Promise: until the VM is accepted, `undo` leaves nothing of them here, and what was kept is kept again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

from korora.agents.dataplane import DestinationRelay
from korora.errors import PeerError
from korora.migration.crossing.copying.supplying import Supplying
from korora.migration.crossing.disks import storage
from korora.migration.crossing.disks.crossed import Crossed
from korora.migration.crossing.disks.incoming import DisksIn
from korora.migration.crossing.disks.keeping import given_back, taken, tell_leaves
from korora.migration.crossing.vigil import while_watching
from korora.migration.greeting.conversation import Conversation
from korora.migration.setting import Setting
from korora.model.storage import DiskOrder
from korora.model.vm import VmDefinition
from korora.ports.hypervisor import Machine
from korora.ports.moving_disks import MovingDisks
from korora.protocol import messages

T = TypeVar("T")
Relay = Callable[[Path, int], DestinationRelay]
"""What delivers a disk to that socket: the first one, the second one, …"""


class Arriving:
    """Those of one move. `vm`: as it will be here."""

    def __init__(
        self, at: Setting, vm: VmDefinition, orders: Sequence[DiskOrder], undo: AsyncExitStack
    ) -> None:
        self._at = at
        self._vm = vm
        self._orders = orders
        self._undo = undo
        self._in: DisksIn | None = None
        self._there: list[str] = []  # in part: of an earlier visit, or over other images
        self._shares = False  # there may be parts of the others here

    async def make(self, *, incremental: bool) -> None:
        """New and empty images, or over those that were to lie beneath them, or those of an earlier visit."""
        made = {disk.name: disk for disk in self._vm.disks}
        for order in self._orders:
            disk = made[order.name]
            path = Path(disk.path)
            if incremental and await taken(self._at, self._vm, disk, order.size):
                self._undo.push_async_callback(given_back, self._at, self._vm.name, order.name, path)
                self._there.append(order.name)
                continue
            await self._at.hypervisor.make_disk(disk, order.size)
            if disk.backing:
                self._there.append(order.name)

    async def open(self, machine: Machine | None, relay: Relay) -> messages.Open:
        """Take what comes, if something does: what the source is told of it. `machine`: of a VM that runs."""
        if self._orders:
            disks = await self._moving(machine)
            relays = [relay(disks.socket, number) for number in range(len(self._orders))]
            supplying = None
            if await asyncio.to_thread(self._at.contents.shares, self._vm.name):
                supplying, self._shares = Supplying(self._at.contents, self._vm.name, disks), True
            self._in = DisksIn(disks, relays, self._at.images, supplying)
            self._undo.push_async_callback(self._in.abandon, "the migration stopped")
            await self._in.open()
        return messages.Open(tuple(self._there), self._shares)

    async def take(self, talk: Conversation) -> None:
        """Until they are the same here as there, and measured; the guest still writes to them."""
        disks = self._in
        if disks is None:
            return
        for name in self._there:
            leaves = await self._watching(talk, disks.leaves(name))
            await tell_leaves(talk, name, leaves)
        if not self._there:  # what is compared is measured when it is asked for
            disks.measure_meanwhile()
        await while_watching(self._until_copied(talk, disks), disks.broken())
        await self._watching(talk, disks.settle())
        await talk.say(messages.Measured())

    async def arrived(self) -> Crossed | None:
        """With the VM paused or stopped on both sides. None where no disk came."""
        return await self._in.arrived() if self._in is not None else None

    def learn(self) -> None:
        """Once the move is over: what lies here now need not be sent again to this tenant's VMs."""
        if self._orders:
            moved = storage.moving(self._vm, [order.name for order in self._orders])
            self._at.contents.learn(self._vm.name, [Path(disk.path) for disk in moved])

    async def _until_copied(self, talk: Conversation, disks: DisksIn) -> None:
        kinds = (messages.Copied, messages.Compare, messages.Parts)
        while True:
            said = await talk.expect_one_of(kinds, None)
            match said:
                case messages.Copied():
                    return
                case messages.Parts():
                    told = await disks.answer(said.disk, said.said)
                    await talk.say(messages.Parts(said.disk, told))
                case messages.Compare() if said.disk in self._there:
                    await talk.say(messages.Grains(tuple(await disks.grains(said.disk, said.chunks))))
                case _:
                    raise PeerError(f"{said.disk} is not compared here", kind="bad-hashes")

    async def _moving(self, machine: Machine | None) -> MovingDisks:
        names = [order.name for order in self._orders]
        if machine is not None:
            return await machine.moving_disks(names)
        folder = self._at.guests.directory(self._vm.name)
        disks = storage.moving(self._vm, names)
        return await self._at.hypervisor.disks_at_rest(disks, folder, writable=True)

    async def _watching(self, talk: Conversation, work: Coroutine[Any, Any, T]) -> T:
        return await while_watching(work, talk.listen_for_abort())
