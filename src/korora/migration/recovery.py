"""Hand-overs that a crash or a lost connection left open, brought to their end (S8).

Promise: whatever state the journal holds, this host goes on from it as the ownership table says: it repeats
its last word, asks, or answers, and never runs a VM that it does not own.
Limit: what only a person can know stays in doubt, and is said so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

from korora.errors import KororaError
from korora.migration import docket
from korora.migration.conversation import WORK_DEADLINE_S, Conversation
from korora.migration.cold import ColdInbound
from korora.migration.inbound import Inbound
from korora.migration.setting import Setting
from korora.migration.settling import Settling, event_of
from korora.model.identity import HostName, VmName
from korora.model.ownership import Event, On, Status
from korora.ports.journal import VmRecord
from korora.protocol import messages

OPEN: Final = frozenset(Status) - {Status.ABSENT, Status.OWNER, Status.WIPED}
_ASKS: Final = frozenset({Status.RELEASED, Status.IN_DOUBT, Status.LOADED, Status.ORPHANED, Status.DECLINED})
_EVERY_S: Final = 3.0
_SOON_S: Final = 20.0

log = structlog.get_logger("korora.recovery")


class Settlement:
    """Runs beside the migrations. `busy` tells which VMs a live conversation takes care of."""

    def __init__(self, setting: Setting, busy: Callable[[str], bool]) -> None:
        self._at = setting
        self._busy = busy
        self._kept: dict[VmName, Inbound | ColdInbound] = {}
        self._locks: dict[VmName, asyncio.Lock] = {}
        self._task: asyncio.Task[None] | None = None

    def keep(self, vm: VmName, arrived: Inbound | ColdInbound) -> None:
        """A VM that was accepted here, whose source went silent: it stays loaded and paused."""
        self._kept[vm] = arrived

    async def start(self) -> None:
        """After a restart: every open hand-over goes on from the journal; then this host keeps asking."""
        for record in self._at.journal.vms():
            if Status(record.ownership) in OPEN | {Status.OWNER}:
                await self._restarted(record)
        self._task = asyncio.create_task(self._keep_asking())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def answer(self, conversation: Conversation, message: messages.Message) -> None:
        """Another host repeats, asks or answers about a session."""
        event = event_of(message)
        record = self._at.journal.session(event.session) if event and event.session else None
        if event is None or record is None or record.peer != conversation.channel.peer:
            await conversation.say(messages.Abort(6, "unknown-session", "no such session is known here", ""))
            return
        async with self._alone(record.vm):
            settling = Settling(self._at, record.vm, self._kept, conversation)
            await settling.on(event, message)

    async def settle_soon(self, vm: VmName) -> Status | None:
        """Ask at once and again for a while; the new standing, or None when it is still open."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + _SOON_S
        while loop.time() < give_up_at:
            await self._remind(vm)
            record = self._at.journal.vm(vm)
            if record is not None and Status(record.ownership) not in OPEN:
                return Status(record.ownership)
            await asyncio.sleep(1.0)
        return None

    async def _keep_asking(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            for record in self._at.journal.vms():
                if Status(record.ownership) in OPEN and not self._busy(record.name):
                    await self._remind(record.name)

    async def _restarted(self, record: VmRecord) -> None:
        async with self._alone(record.name):
            settling = Settling(self._at, record.name, self._kept, None)
            try:
                await settling.on(Event(On.RESTARTED, copy=settling.copy), None)
            except KororaError as error:
                log.warning("not settled yet", vm=record.name, kind=error.kind, error=error.message)

    async def _remind(self, vm: VmName) -> None:
        """One attempt to reach the other host and to go on from there."""
        async with self._alone(vm):
            record = self._at.journal.vm(vm)
            if record is None or record.session is None or Status(record.ownership) not in OPEN:
                return
            try:
                if Status(record.ownership) in _ASKS:
                    await self._talk_about(record, HostName(record.peer or ""))
                else:
                    settling = Settling(self._at, vm, self._kept, None)
                    await settling.on(Event(On.REMINDED), None)
            except KororaError as error:
                log.info("not settled yet", vm=vm, kind=error.kind, error=error.message)

    async def _talk_about(self, record: VmRecord, peer: HostName) -> None:
        known = docket.read(self._at, record.session or "")  # type: ignore[arg-type]
        channel = await self._at.dial(peer, known.address or self._at.address_of(peer))
        conversation = Conversation(channel)
        try:
            settling = Settling(self._at, record.name, self._kept, conversation)
            await settling.on(Event(On.REMINDED), None)
            reply = await conversation.expect(messages.Message, WORK_DEADLINE_S)
            event = event_of(reply)
            if event is not None:
                await settling.on(event, reply)
        finally:
            with suppress(KororaError):
                await channel.close()

    def _alone(self, vm: VmName) -> asyncio.Lock:
        return self._locks.setdefault(vm, asyncio.Lock())
