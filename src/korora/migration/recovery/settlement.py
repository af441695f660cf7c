"""Hand-overs that a crash or a lost connection left open, brought to their end (S8).

Promise: whatever state the journal holds, this host goes on from it as the ownership table says: it repeats
its last word, asks, or answers, and never runs a VM that it does not own. While a conversation of `source` or
`destination` is about a VM, nothing is done here beside it.
Limit: what only a person can know stays in doubt, and is said so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from korora.errors import KororaError, PeerError, ToolError
from korora.migration.crossing.cold import ColdInbound
from korora.migration.crossing.inbound import Inbound
from korora.migration.crossing.outbound import SOCKET
from korora.migration.greeting.conversation import Conversation
from korora.migration.papers import docket
from korora.migration.recovery.settling import Settling, event_of
from korora.migration.setting import Setting
from korora.model.identity import HostName, SessionId, VmName
from korora.model.ownership import Event, On, Status
from korora.ports.journal import VmRecord
from korora.protocol import messages

OPEN: Final = frozenset(Status) - {Status.ABSENT, Status.OWNER, Status.WIPED}
_ASKS: Final = frozenset({Status.RELEASED, Status.IN_DOUBT, Status.LOADED, Status.ORPHANED, Status.DECLINED})
_INTERRUPTED: Final = frozenset({Status.OFFERED, Status.LOADING})  # no conversation is about them any more
_EXCHANGES: Final = 8  # in one conversation; a settled hand-over needs three

log = structlog.get_logger("korora.recovery")


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: between two reminders; that a failed migration waits for the other host before its outcome;
    for one answer; of silence until a person is asked."""

    every_s: float = 3.0
    soon_s: float = 20.0
    answer_s: float = 60.0
    silent_s: float = 300.0


class Story(Protocol):
    """A conversation about a VM that is under way: a departure or an arrival."""

    @property
    def vm(self) -> VmName | None: ...

    @property
    def session(self) -> SessionId | None: ...

    async def break_off(self) -> None:
        """The other host speaks of it anew, so nothing more will come: end soon."""
        ...


class Settlement:
    """Runs beside the migrations."""

    def __init__(self, setting: Setting, pace: Pace) -> None:
        self._at = setting
        self._pace = pace
        self._kept: dict[VmName, Inbound | ColdInbound] = {}
        self._locks: dict[VmName, asyncio.Lock] = {}
        self._stories: dict[Story, asyncio.Event] = {}
        self._unseen: set[VmName] = set()  # not looked at yet since the daemon came back
        self._silent_since: dict[VmName, float] = {}
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def busy(self) -> bool:
        """Whether a conversation is under way, or a step of recovery is owed."""
        return bool(self._stories or self._unseen) or any(lock.locked() for lock in self._locks.values())

    def keep(self, vm: VmName, arrived: Inbound | ColdInbound) -> None:
        """A VM that was accepted here, whose source went silent: it stays as it arrived."""
        self._kept[vm] = arrived

    def look_again(self, vm: VmName) -> None:
        """Something of its end failed here: go on from the journal, as after a restart."""
        self._unseen.add(vm)

    @asynccontextmanager
    async def beside(self, story: Story) -> AsyncIterator[None]:
        """While it lasts, recovery keeps out of it."""
        over = self._stories[story] = asyncio.Event()
        try:
            yield
        finally:
            del self._stories[story]
            over.set()

    async def start(self) -> None:
        """After a restart: every hand-over goes on from the journal; then this host keeps asking."""
        self._unseen = {record.name for record in self._at.journal.vms()}
        for vm in sorted(self._unseen):
            await self._attempt(vm)
        self._task = asyncio.create_task(self._keep_asking())

    async def stop(self) -> None:
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def answer(self, conversation: Conversation, message: messages.Message) -> None:
        """Another host repeats, asks or answers about a session."""
        event = event_of(message, None)
        record = self._at.journal.session(event.session) if event and event.session else None
        if event is None or record is None or record.peer != conversation.channel.peer:
            await conversation.say(messages.Abort(6, "unknown-session", "no such session is known here", ""))
            return
        await self._break_off(record.session)
        for _ in range(_EXCHANGES):
            if not await self._take(record.vm, record.session, conversation, message):
                return
            with suppress(PeerError):  # whoever has nothing to add just leaves
                message = await conversation.expect(messages.Message, self._pace.answer_s)
                continue
            return

    async def settle_soon(self, vm: VmName) -> Status | None:
        """Ask at once and again for a while; the new standing, or None when it is still open."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._pace.soon_s
        while not self._stopping:
            await self._attempt(vm)
            with suppress(KororaError):  # a journal that cannot be read now may be well again in a moment
                record = self._at.journal.vm(vm)
                if record is not None and Status(record.ownership) not in OPEN:
                    return Status(record.ownership)
            if loop.time() >= give_up_at:
                return None
            await asyncio.sleep(min(1.0, self._pace.every_s))
        return None

    # -- inside -----------------------------------------------------------------------------------------

    async def _keep_asking(self) -> None:
        while True:
            await asyncio.sleep(self._pace.every_s)
            try:
                records = self._at.journal.vms()
            except KororaError as error:  # it may be well again next time
                log.error("the journal cannot be read", kind=error.kind, error=error.message)
                continue
            await asyncio.gather(*(self._attempt(record.name) for record in records))

    async def _attempt(self, vm: VmName) -> None:
        """One step towards the end of whatever is open about this VM, unless a conversation is about it."""
        try:
            record = self._at.journal.vm(vm)
            if record is None or any(story.vm == vm for story in self._stories):
                return
            if vm in self._unseen:
                await self._restarted(vm)
            elif Status(record.ownership) in OPEN:
                await self._go_on(record)
        except KororaError as error:
            log.info("not settled yet", vm=vm, kind=error.kind, error=error.message)
        except Exception:  # one VM that cannot be settled must not keep the others from it
            log.exception("settling broke", vm=vm)

    async def _restarted(self, vm: VmName) -> None:
        async with self._alone(vm):
            settling = await Settling.open(self._at, vm, self._kept, None)
            await settling.on(Event(On.RESTARTED, copy=settling.copy), None)
            if settling.status is Status.OWNER:
                # A daemon that was killed before its hypervisor came to the socket could not remove it.
                (self._at.guests.directory(vm) / SOCKET).unlink(missing_ok=True)
            self._unseen.discard(vm)

    async def _go_on(self, record: VmRecord) -> None:
        async with self._alone(record.name):
            settling = await Settling.open(self._at, record.name, self._kept, None)
            status = settling.status
            asks = status in _ASKS or (status is Status.OFFERED and not settling.copy)
            if status in OPEN and not asks:
                event = On.FAILED if status in _INTERRUPTED else On.REMINDED
                await self._step(settling, Event(event), None)
        if asks:
            await self._ask(record)

    async def _ask(self, record: VmRecord) -> None:
        """Speak with the other host. ToolError or PeerError when it does not answer; that is counted."""
        now = self._at.clock.monotonic()
        since = self._silent_since.setdefault(record.name, now)
        try:
            await self._talk_about(record)
            self._silent_since.pop(record.name, None)
        except ToolError:
            if now - since > self._pace.silent_s:
                self._silent_since[record.name] = now  # a person is asked again after as long a silence
                await self._ask_a_person(record)
            raise

    async def _ask_a_person(self, record: VmRecord) -> None:
        async with self._alone(record.name):
            settling = await Settling.open(self._at, record.name, self._kept, None)
            if settling.session == record.session and settling.status == record.ownership:
                await settling.on(Event(On.PEER_SILENT), None)

    async def _talk_about(self, record: VmRecord) -> None:
        """The lock is held while this host acts, never while it waits: the other may be asking as well."""
        if record.session is None:
            raise ToolError(f"the journal names no session of {record.name}", kind="journal")
        session, peer = record.session, HostName(record.peer or "")
        channel = await self._at.dial(
            peer, docket.read(self._at, session).address or self._at.address_of(peer)
        )
        try:
            talk = Conversation(channel)
            async with self._alone(record.name):
                settling = await Settling.open(self._at, record.name, self._kept, talk)
                if settling.session == session and settling.status in OPEN:
                    await settling.on(Event(On.REMINDED), None)
            spoke = settling.spoke
            for _ in range(_EXCHANGES):
                if not spoke:
                    return
                reply = await talk.expect(messages.Message, self._pace.answer_s)
                spoke = await self._take(record.name, session, talk, reply)
        finally:
            with suppress(KororaError):
                await channel.close()

    async def _take(
        self, vm: VmName, session: SessionId, talk: Conversation, message: messages.Message
    ) -> bool:
        """Act upon the other host's message; whether this host said something to it."""
        event = event_of(message, session)
        if event is None or event.session != session:
            return False
        if vm in self._unseen:
            await self._restarted(vm)
        async with self._alone(vm):
            settling = await Settling.open(self._at, vm, self._kept, talk)
            await self._step(settling, event, message)
        return settling.spoke

    async def _step(self, settling: Settling, event: Event, message: messages.Message | None) -> None:
        """A step may be journalled and its deed fail: then the deed is owed."""
        try:
            await settling.on(event, message)
        except PeerError:
            raise
        except (KororaError, OSError):
            self._unseen.add(settling.vm)
            raise

    async def _break_off(self, session: SessionId) -> None:
        for story, over in list(self._stories.items()):
            if story.session == session:
                await story.break_off()
                await over.wait()

    def _alone(self, vm: VmName) -> asyncio.Lock:
        return self._locks.setdefault(vm, asyncio.Lock())
