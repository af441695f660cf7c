"""One open hand-over, taken one step further: the ownership table's actions, done with what is at hand."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from typing import Final

import msgspec
import structlog

from korora.errors import IntegrityError, KororaError, PeerError
from korora.migration.crossing import wiping
from korora.migration.crossing.cold import ColdInbound
from korora.migration.crossing.disks.keeping import keeping_of
from korora.migration.crossing.first_run import Ran, first_run, is_there
from korora.migration.crossing.inbound import Inbound
from korora.migration.greeting.conversation import Conversation
from korora.migration.known import known
from korora.migration.monitor import Monitor
from korora.migration.papers import docket, handover
from korora.migration.recovery.standing import Hand, Standing
from korora.migration.setting import Setting
from korora.model.definition import parse_definition
from korora.model.identity import SessionId, VmName
from korora.model.ownership import Do, End, Event, On, Status
from korora.model.vm import RunState
from korora.policy.machine.language.vocabulary import Procedure
from korora.ports.hypervisor import Machine
from korora.ports.journal import VmRecord
from korora.protocol import dsse, messages, ownership, statements
from korora.supervision.live import LiveVm, find_again

log = structlog.get_logger("korora.recovery")
_NOTHING_THERE: Final = frozenset({"no-copy", "unknown-session"})
_GIVEN_BACK: Final = {
    Status.OFFERED: Procedure.WITHDRAW,
    Status.RELEASED: Procedure.RECLAIM,
    Status.IN_DOUBT: Procedure.RECLAIM,
}
"""What it is called when the source has the VM again, by how it stood before."""
_GONE: Final = frozenset({Status.ABSENT, Status.WIPED})
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


def event_of(message: messages.Message, session: SessionId | None) -> Event | None:
    """What a peer's message is about, nothing verified yet; None for one that settles nothing.

    `session` is the one that the conversation is about, if that is known: an Abort does not say.
    """
    match message:
        case messages.Query(session=named):
            return Event(On.QUERY, SessionId(named))
        case messages.Closed(session=named):
            return Event(On.CLOSED, SessionId(named))
        case messages.Abort(kind=kind) if session is not None and kind in _NOTHING_THERE:
            return Event(On.ABORT, session)
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
        live: LiveVm | None,
    ) -> None:
        self._at = setting
        self.vm = vm
        self._kept = kept
        self._talk = conversation
        self._live = live
        self._standing = Standing(setting.journal, vm, copy=False)
        self._record = setting.journal.vm(vm)
        session = self._about = self._standing.state.session
        known_here = session is not None and setting.journal.session(session) is not None
        self._docket = docket.read(setting, session) if session is not None and known_here else None
        self._file = docket.reopened(self._docket) if self._docket is not None else None
        self._monitor: Monitor | None = None
        self.spoke = False

    @classmethod
    async def open(
        cls,
        setting: Setting,
        vm: VmName,
        kept: MutableMapping[VmName, Inbound | ColdInbound],
        conversation: Conversation | None,
    ) -> Settling:
        """As the journal and the machine are now. ToolError(kind="unresponsive") while the machine does not
        say whether the VM's process lives: that is not to be taken for its end."""
        settling = cls(setting, vm, kept, conversation, _live(setting, vm))
        settling._standing = Standing(setting.journal, vm, copy=await settling._has_copy())
        return settling

    @property
    def copy(self) -> bool:
        """Whether the VM's state is here: its process, or the files of a stopped one."""
        return self._standing.state.copy

    @property
    def status(self) -> Status:
        return self._standing.state.status

    @property
    def session(self) -> SessionId | None:
        return self._standing.state.session

    async def on(self, event: Event, message: messages.Message | None) -> None:
        """Verify the message, if it is one about the open session, and take the step."""
        about, before = self.session, self.status
        if message is not None and event.session == about:
            self._verify(message)
        await self._standing.on(event, self._hands(event))
        if self._docket is not None and self.status is Status.OWNER and before in _GIVEN_BACK:
            self._rules.did(_GIVEN_BACK[before])

    @property
    def _rules(self) -> Monitor:
        """The rules as they stand in this session, from the log. PeerError if nothing is known of it."""
        if self._monitor is None:
            if self._docket is None or self._file is None or self.session is None:
                raise PeerError(
                    f"nothing is known here of what {self.vm}'s hand-over was about", kind="unknown"
                )
            self._monitor = Monitor.reopened(self._at, self.session, self._docket, self._file)
        return self._monitor

    async def _has_copy(self) -> bool:
        if self.status in _GONE:  # whatever is left of it must go
            return self._at.guests.remains(self.vm)
        arrived = self._kept.get(self.vm)
        if isinstance(arrived, Inbound):
            return arrived.machine is not None and await is_there(arrived.machine)
        if self._live is not None:
            return await is_there(self._live.machine)
        return self._is_cold and self._at.guests.remains(self.vm)

    @property
    def _is_cold(self) -> bool:
        return self._docket is not None and self._docket.cold

    async def _repeat(self, event: Event) -> None:
        """A message about a session that is over here: answer from how it ended."""
        session = known(event.session)
        record = self._at.journal.session(session)
        how = End(record.outcome) if record is not None and record.outcome else None
        action = ownership.answer(how, event.on)
        hand = self._hands(event).get(action) if action is not None else None
        if hand is not None:
            self._file = docket.reopened(docket.read(self._at, session))
            self._about = session
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
                Do.SEND_MANIFEST: self._send_manifest,
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
        if self._file is None or self._docket is None:
            raise PeerError(f"nothing is known here of what {self.vm}'s hand-over was about", kind="unknown")
        file, session = self._file, known(self.session)
        key = handover.certified_key(self._docket.peer_certificate)
        match message:
            case messages.Manifest(envelope=envelope):
                statements.check_answers(statements.digest(envelope), known(file.manifest), "manifest")
            case messages.Accept(envelope=envelope):
                own = statements.opened(known(file.manifest), statements.Manifest, self._at.signer.public)
                file.accept, file.sent = envelope, own.carried
                handover.accepted(file, key)
                if self.status is Status.OFFERED:
                    docket.note_accept(self._at, session, envelope)
            case messages.Release(envelope=envelope):
                file.release = envelope
                handover.check_release(file, key)
                docket.note_release(self._at, session, envelope)
            case messages.Running(envelope=envelope):
                handover.note_running(file, envelope, key)
            case messages.Decline(envelope=envelope):
                handover.declined(file, envelope, key)
            case _:
                return

    # -- hands ------------------------------------------------------------------------------------------

    async def _resume(self) -> None:
        """The VM goes on here, as if no move had begun."""
        if self._live is None:
            return
        machine, vtpm = self._live.machine, self._live.vtpm
        with suppress(KororaError):  # nothing to cancel, or it ended by itself
            await machine.cancel_stream()
        if vtpm is not None:
            with suppress(KororaError):  # a VM without its vTPM is better off than one that stands still
                await vtpm.stay()
        if await machine.run_state() is not RunState.RUNNING:
            await machine.resume()

    async def _run(self) -> None:
        self._rules.permit(Procedure.RUN)
        machine = self._machine
        if machine is not None:
            done = await first_run(machine)
            if done.ran is Ran.NO:
                log.error("the VM does not run here", vm=self.vm, error=done.reason)
                await self._standing.on(Event(On.RUN_REFUSED), self._hands(Event(On.RUN_REFUSED)))
            if done.ran is not Ran.YES:
                return
        await self._standing.on(Event(On.RUN_SUCCEEDED), {})
        self._take_in()
        self._rules.did(Procedure.RUN)
        if self._talk is not None:
            await self._send_running()

    def _take_in(self) -> None:
        """It is this host's: its supervision must know it, before anything else can fail."""
        arrived = self._kept.pop(self.vm, None)
        if arrived is not None:
            arrived.admit(self._at.guests, self._standing.state.epoch)

    @property
    def _machine(self) -> Machine | None:
        arrived = self._kept.get(self.vm)
        if isinstance(arrived, Inbound):
            return arrived.machine
        return self._live.machine if self._live is not None else None

    def _moved(self) -> tuple[str, ...]:
        return self._file.request.disks.names if self._file is not None else ()

    async def _wipe(self) -> None:
        self._rules.did(Procedure.RUN)  # the proof of it is what the wipe follows from
        self._rules.permit(Procedure.WIPE)
        record = known(self._record)
        definition = parse_definition(record.definition)
        live = self._live or await self._look_for(record)
        if live is not None:
            await self._at.guests.release(self.vm)
            await wiping.retire(live.machine, live.vtpm)
        await wiping.wipe_remains(self._at, definition, self._moved(), keeping_of(self._at, self._file))
        await self._standing.on(Event(On.WIPE_DONE), {})
        self._rules.did(Procedure.WIPE)

    async def _destroy(self) -> None:
        arrived = self._kept.get(self.vm)
        if isinstance(arrived, Inbound) and arrived.machine is not None:
            await arrived.machine.quit()
        live = self._live or (await self._look_for(known(self._record)) if arrived is None else None)
        if live is not None:
            await self._at.guests.release(self.vm)
            await live.machine.quit()
        await self._at.vtpms.wipe(self.vm, self._at.guests.directory(self.vm))
        await asyncio.to_thread(shutil.rmtree, self._at.guests.directory(self.vm), ignore_errors=True)
        self._kept.pop(self.vm, None)

    async def _look_for(self, record: VmRecord) -> LiveVm | None:
        """A process that supervision does not know any more, or never did."""
        if not self._at.guests.remains(self.vm):
            return None
        directory = self._at.guests.directory(self.vm)
        return (await find_again(record, directory, self._at.hypervisor, self._at.vtpms)).live

    async def _pause(self) -> None:
        if self._live is not None:
            await self._live.machine.pause()

    async def _ask(self) -> None:
        log.error(
            "a person must decide",
            vm=self.vm,
            standing=str(self._standing.state),
            peer=known(self._record).peer,
        )

    async def _send_manifest(self) -> None:
        if self._file is not None and self._file.manifest is not None:
            await self._say(messages.Manifest(self._file.manifest))

    async def _send_release(self) -> None:
        file = known(self._file)
        if file.release is None:
            file.release = handover.release(self._at, file)
            docket.note_release(self._at, SessionId(known(file.move).session), file.release)
        await self._say(messages.Release(file.release))

    async def _send_running(self) -> None:
        await self._say(messages.Running(handover.running(self._at, known(self._file))))

    async def _send_decline(self) -> None:
        reason = "the VM was not run here; see this host's log"
        await self._say(messages.Decline(handover.decline(self._at, known(self._file), reason)))

    async def _send_accept(self) -> None:
        await self._say(messages.Accept(known(known(self._file).accept)))

    async def _send_query(self) -> None:
        await self._say(messages.Query(known(self.session)))

    async def _send_closed(self) -> None:
        await self._say(messages.Closed(known(self._about)))

    async def _send_abort(self) -> None:
        await self._say(messages.Abort(6, "no-copy", "there is no copy of the VM here", ""))

    async def _say(self, message: messages.Message) -> None:
        await known(self._talk).say(message)
        self.spoke = True


def _live(at: Setting, vm: VmName) -> LiveVm | None:
    """The VM's process on this host, whoever owns the VM. ToolError as `Settling.open`."""
    try:
        return at.guests.live(vm)
    except KororaError:
        if at.guests.unclear(vm):
            raise
        return None
