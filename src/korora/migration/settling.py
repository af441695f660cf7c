"""One open hand-over, taken one step further: the ownership table's actions, done with what is at hand."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from typing import Final

import msgspec
import structlog

from korora.errors import IntegrityError, KororaError
from korora.migration import docket, handover, wiping
from korora.migration.cold import ColdInbound
from korora.migration.conversation import Conversation
from korora.migration.inbound import Inbound
from korora.migration.known import known
from korora.migration.setting import Setting
from korora.migration.standing import Hand, Standing
from korora.model.definition import parse_definition
from korora.model.identity import SessionId, VmName
from korora.model.ownership import Do, End, Event, On
from korora.model.vm import RunState
from korora.protocol import dsse, messages, ownership
from korora.supervision.live import LiveVm

log = structlog.get_logger("korora.recovery")
_WORDS: Final = {
    messages.Manifest: On.MANIFEST,
    messages.Accept: On.ACCEPT,
    messages.Release: On.RELEASE,
    messages.Running: On.RUNNING,
    messages.Decline: On.DECLINE,
}


class _Peeked(msgspec.Struct):
    move: _PeekedMove


class _PeekedMove(msgspec.Struct):
    session: str
    epoch: int


def event_of(message: messages.Message) -> Event | None:
    """What a peer's message is about, nothing verified yet; None for one that settles nothing."""
    match message:
        case messages.Query(session=session):
            return Event(On.QUERY, SessionId(session))
        case messages.Closed(session=session):
            return Event(On.CLOSED, SessionId(session))
        case (
            messages.Manifest(envelope=envelope)
            | messages.Accept(envelope=envelope)
            | messages.Release(envelope=envelope)
            | messages.Running(envelope=envelope)
            | messages.Decline(envelope=envelope)
        ):
            try:
                move = msgspec.json.decode(dsse.parse(envelope).payload, type=_Peeked).move
            except (msgspec.MsgspecError, IntegrityError):
                return None
            return Event(_WORDS[type(message)], SessionId(move.session), epoch=move.epoch)
        case _:
            return None


class Settling:
    """One VM's open hand-over. With a conversation it speaks to the other host; without, it acts alone."""

    def __init__(
        self,
        setting: Setting,
        vm: VmName,
        kept: MutableMapping[VmName, Inbound | ColdInbound],
        conversation: Conversation | None,
    ) -> None:
        self._at = setting
        self._vm = vm
        self._kept = kept
        self._talk = conversation
        self._live = _live(setting, vm)
        self.copy = self._live is not None or vm in kept
        self._standing = Standing(setting.journal, vm, copy=self.copy)
        self._record = setting.journal.vm(vm)
        session = self._session_before = self._standing.state.session
        self._file = (
            docket.reopened(docket.read(setting, session))
            if session is not None and setting.journal.session(session) is not None
            else None
        )

    async def on(self, event: Event, message: messages.Message | None) -> None:
        """Verify the message, if it is one about the open session, and take the step."""
        if message is not None and event.session == self._standing.state.session:
            self._verify(message)
        await self._standing.on(event, self._hands(event))

    async def _repeat(self, event: Event) -> None:
        """A message about a session that is over here: answer from how it ended."""
        record = self._at.journal.session(known(event.session))
        how = End(record.outcome) if record is not None and record.outcome else None
        action = ownership.answer(how, event.on)
        hand = self._hands(event).get(action) if action is not None else None
        if hand is not None:
            self._file = docket.reopened(docket.read(self._at, known(event.session)))
            self._session_before = event.session
            await hand()

    def _hands(self, event: Event) -> Mapping[Do, Hand]:
        async def repeat() -> None:
            await self._repeat(event)

        hands: dict[Do, Hand] = {
            Do.RESUME: self._resume,
            Do.RUN: self._run,
            Do.WIPE: self._wipe,
            Do.DESTROY: self._destroy,
            Do.PAUSE: self._pause,
            Do.ASK: self._ask,
        }
        if self._talk is not None:
            hands |= {
                Do.REPEAT: repeat,
                Do.SEND_RELEASE: self._send_release,
                Do.SEND_RUNNING: self._send_running,
                Do.SEND_DECLINE: self._send_decline,
                Do.SEND_ACCEPT: self._send_accept,
                Do.SEND_QUERY: self._send_query,
                Do.SEND_CLOSED: self._send_closed,
                Do.SEND_ABORT: self._send_abort,
            }
        return hands

    def _verify(self, message: messages.Message) -> None:
        """IntegrityError unless the open session's other host signed it about this hand-over."""
        file, session = known(self._file), known(self._standing.state.session)
        key = handover.certified_key(docket.read(self._at, session).peer_certificate)
        match message:
            case messages.Release(envelope=envelope):
                file.release = envelope
                handover.check_release(file, key)
            case messages.Running(envelope=envelope):
                file.running = envelope
                handover.check_running(file, key)
            case messages.Decline(envelope=envelope):
                handover.declined(file, envelope, key)
            case _:
                return

    # -- hands ------------------------------------------------------------------------------------------

    async def _resume(self) -> None:
        if self._live is not None and await self._live.machine.run_state() is not RunState.RUNNING:
            if self._live.vtpm is not None:
                await self._live.vtpm.stay()
            await self._live.machine.resume()

    async def _run(self) -> None:
        arrived = self._kept.get(self._vm)
        try:
            if arrived is not None:
                await arrived.run()
            elif self._live is not None:
                await self._live.machine.resume()
                await self._live.machine.announce()
        except KororaError as error:
            log.error("the VM does not run here", vm=self._vm, error=error.message)
            await self._standing.on(Event(On.RUN_REFUSED), self._hands(Event(On.RUN_REFUSED)))
            return
        await self._standing.on(Event(On.RUN_SUCCEEDED), self._hands(Event(On.RUN_SUCCEEDED)))
        if arrived is not None:
            arrived.admit(self._at.guests, self._standing.state.epoch)
            del self._kept[self._vm]

    async def _wipe(self) -> None:
        definition = parse_definition(known(self._record).definition)
        if self._live is not None:
            await self._at.guests.release(self._vm)
            await wiping.retire(self._live.machine, self._live.vtpm)
        await wiping.wipe_remains(self._at, definition)
        await self._standing.on(Event(On.WIPE_DONE), {})

    async def _destroy(self) -> None:
        arrived = self._kept.pop(self._vm, None)
        if arrived is not None:
            await arrived.abandon("the source kept the VM")
        if self._live is not None:
            await self._at.guests.release(self._vm)
            await self._live.machine.quit()
        directory = self._at.guests.directory(self._vm)
        with suppress(KororaError):
            await self._at.vtpms.wipe(self._vm, directory)
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    async def _pause(self) -> None:
        if self._live is not None:
            await self._live.machine.pause()

    async def _ask(self) -> None:
        log.error(
            "a person must decide",
            vm=self._vm,
            standing=str(self._standing.state),
            peer=known(self._record).peer,
        )

    async def _send_release(self) -> None:
        file = known(self._file)
        if file.release is None:
            file.release = handover.release(self._at, file)
            docket.note_release(self._at, SessionId(known(file.move).session), file.release)
        await known(self._talk).say(messages.Release(file.release))

    async def _send_running(self) -> None:
        await known(self._talk).say(messages.Running(handover.running(self._at, known(self._file))))

    async def _send_decline(self) -> None:
        reason = "the VM was not run here; see this host's log"
        said = handover.decline(self._at, known(self._file), reason)
        await known(self._talk).say(messages.Decline(said))

    async def _send_accept(self) -> None:
        await known(self._talk).say(messages.Accept(known(known(self._file).accept)))

    async def _send_query(self) -> None:
        await known(self._talk).say(messages.Query(known(self._standing.state.session)))

    async def _send_closed(self) -> None:
        await known(self._talk).say(messages.Closed(known(self._session_before)))

    async def _send_abort(self) -> None:
        await known(self._talk).say(messages.Abort(6, "no-copy", "there is no copy of the VM here", ""))


def _live(at: Setting, vm: VmName) -> LiveVm | None:
    """The VM's process on this host, whoever owns the VM."""
    try:
        return at.guests.live(vm)
    except KororaError:
        return None
