"""The destination's side of the story: the host that is asked to take the VM.

Promise: nothing of a VM is taken before the source was attested and the request allowed; what arrives is run
only after a durable RELEASE; until this host has signed ACCEPT, any failure leaves nothing here.
The phases are those of `phases.arrive`, in that order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec

from korora.agents.dataplane import DestinationRelay
from korora.errors import RefusedError, ToolError
from korora.migration import inspection
from korora.migration.crossing.cold import ColdInbound
from korora.migration.crossing.disks import storage
from korora.migration.crossing.disks.arriving import Arriving
from korora.migration.crossing.first_run import Ran
from korora.migration.crossing.inbound import Inbound
from korora.migration.crossing.vigil import while_watching
from korora.migration.greeting import survey
from korora.migration.greeting.conversation import VISIT_DEADLINE_S, WORK_DEADLINE_S, Conversation
from korora.migration.greeting.meeting import Meeting, meet_as_destination
from korora.migration.greeting.ordered import Ordered
from korora.migration.greeting.reservations import Reservations
from korora.migration.known import known
from korora.migration.monitor import Monitor, Subject
from korora.migration.papers import docket, handover, receipts
from korora.migration.papers.file import MigrationFile
from korora.migration.recovery.standing import Standing
from korora.migration.setting import Setting
from korora.migration.teller import Teller
from korora.model.crossing import Carried
from korora.model.definition import definition_text
from korora.model.identity import Digest, Secret, SessionId, VmName
from korora.model.ownership import Do, Event, On, Status
from korora.model.tpm import WrappedKey, WrappingKey
from korora.policy.machine.language.vocabulary import Procedure
from korora.policy.pcrs import PLATFORM_PCRS
from korora.policy.precheck import OVERHEAD_BYTES
from korora.ports.hypervisor import StreamSettings
from korora.ports.vtpm import BlobBinding
from korora.protocol import messages
from korora.protocol.frames import stream_keys
from korora.protocol.handshake import check_rule, wrap_nonce
from korora.protocol.statements import move_of
from korora.protocol.vtpm_blob import blob_context
from korora.supervision.inspection import dossier

T = TypeVar("T")
# What was accepted is kept until the hand-over is settled, also what this host has declined.
KEPT: Final = frozenset({Status.LOADED, Status.ORPHANED, Status.STARTING, Status.DECLINED})


class Arrival:
    """One migration, as its destination lives it."""

    def __init__(
        self,
        setting: Setting,
        teller: Teller,
        conversation: Conversation,
        first: tuple[messages.Hello, bytes],
        *,
        reservations: Reservations,
        keep: Callable[[VmName, Inbound | ColdInbound], None],
    ) -> None:
        self._at = setting
        self.tell = teller
        self._talk = conversation
        self._first = first
        self._reservations = reservations
        self._keep = keep
        self._undo = AsyncExitStack()  # so that nothing of the VM is left here
        self._after = AsyncExitStack()  # in any case
        self._file: MigrationFile | None = None
        self._met: Meeting | None = None
        self._manifest: messages.Manifest | None = None
        self._live: Inbound | None = None
        self._disks: Arriving | None = None
        self._refusal = ""
        self._dossier: dict[str, bytes] = {}
        self.standing: Standing | None = None
        self.dry_run = False
        self.monitor = Monitor(setting, "destination", self._subject)

    @property
    def file(self) -> MigrationFile:
        return known(self._file)

    @property
    def accepted(self) -> bool:
        """Whether this host has given its word: only the source can end it then."""
        if self.standing is None or self.standing.state.session != self.session:
            return False
        return self.standing.state.status not in {Status.LOADING, Status.ABSENT}

    @property
    def vm(self) -> VmName | None:
        return self._file.request.vm if self._file is not None else None

    @property
    def session(self) -> SessionId | None:
        return self._met.greeted.session if self._met is not None else None

    async def break_off(self) -> None:
        await self._talk.channel.close()

    # -- the phases -------------------------------------------------------------------------------------

    async def attest(self) -> None:
        self._met = await meet_as_destination(
            self._talk, *self._first, self._at.host, self._at.attester, self._at.verify
        )

    async def agree(self) -> None:
        """Ask this host's own policy, and look whether the VM fits here. All findings go back at once."""
        order = await self._talk.expect(messages.Order, VISIT_DEADLINE_S)
        channel = self._talk.channel
        check_rule(
            order.rule, known(self._met).greeted, tls_version=channel.tls_version, tls_group=channel.tls_group
        )
        ordered = Ordered.read(self._at, order)
        self._order, self._brought, self._definition = order, ordered.brought, ordered.definition
        if order.dry_run:
            self.dry_run = True
            self.monitor.nothing_is_done()
            found = await ordered.findings(self._at, self._reservations.before)
            await self._talk.say(messages.Answer("", tuple(found)))
            return
        await self._take(ordered)

    async def baseline(self) -> None:
        """See what the source found in the VM. Lay ready what must be there, start
        the empty VM, prove its memory clean, make the wrapping key."""
        prepare, packed = await inspection.awaited(self._talk)
        name = self._definition.name
        self._dossier = inspection.take(self._at, self.file, name, packed, inspected=prepare.inspected)
        begun = Event(On.BEGUN, self._session, epoch=self._order.epoch, peer=self._talk.channel.peer)
        await known(self.standing).on(begun, {})
        directory = self._at.guests.directory(self._definition.name)
        self._in: Inbound | ColdInbound = (
            ColdInbound(self._at.vtpms, directory, self._definition)
            if self._order.cold
            else Inbound(self._at.hypervisor, self._at.vtpms, directory)
        )
        self._undo.push_async_callback(self._in.abandon, "the migration stopped")
        survey.lay_variables(directory, self._definition, prepare.variables)
        disks = self._disks = Arriving(self._at, self._definition, self._order.disks, self._undo)
        await disks.make(incremental=self.file.request.disks.incremental)
        if isinstance(self._in, Inbound):
            self._live = self._in
            self.file.clean_memory = await self._watching(self._in.prepare(self._definition))
        self.file.wrapping = await self._wrapping_key()
        await self._talk.say(messages.Ready(self.file.clean_memory, self.file.wrapping))
        self._key = await self._receive_key()
        if isinstance(self._in, Inbound):
            await self._open_for_data(self._in)
        first, machine = self._order.rule.streams, self._live.machine if self._live is not None else None
        opened = await disks.open(
            machine, lambda socket, number: self._destination_relay(socket, [first + number], eager=True)
        )
        await self._talk.say(opened)

    async def transfer(self) -> None:
        """Everything arrives; the VM is loaded here, and paused."""
        await known(self._disks).take(self._talk)
        if isinstance(self._in, Inbound):
            self.file.received = await self._watching_for_manifest(self._arrived(self._in.loaded()))
        else:
            self._manifest = await self._talk.expect(messages.Manifest, WORK_DEADLINE_S)
            putting = self._in.put(self._key, self._binding, self._manifest.cold_state)
            self.file.received = await self._watching(self._arrived(putting))

    async def verify(self) -> None:
        """The source's manifest, held against what arrived; then this host gives its word."""
        said = self._manifest or await self._talk.expect(messages.Manifest, WORK_DEADLINE_S)
        self.file.manifest = said.envelope
        manifest = handover.opened_manifest(self.file, self._peer_key)
        self.file.files = {name: Digest(digest) for name, digest in manifest.files.items()}
        self._keep_what_came_beside(said.boot_record)
        here = known(self.standing)
        await here.on(Event(On.MANIFEST, self._session, epoch=self._order.epoch), {})
        self.file.accept = handover.accept(self._at, self.file)
        docket.enter(self._at, self.file, role="destination", address=None, cold=self._order.cold)
        await here.on(Event(On.VERIFIED), {Do.SEND_ACCEPT: self._send_accept})

    async def commit(self) -> None:
        """RELEASE makes this host the owner, durably; then the VM runs."""
        answer = await self._talk.expect_one_of((messages.Release, messages.Closed), WORK_DEADLINE_S)
        here = known(self.standing)
        if isinstance(answer, messages.Closed):
            await here.on(Event(On.CLOSED, self._session), {})  # `close` destroys
            raise RefusedError("the source kept the VM", kind="closed", remedy="see the source's reason")
        self.file.release = answer.envelope
        handover.check_release(self.file, self._peer_key)
        docket.note_release(self._at, self._session, answer.envelope)
        if not await self._in.is_there():
            await here.on(Event(On.HYPERVISOR_FAILED), {})
        released = Event(On.RELEASE, self._session, epoch=self._order.epoch)
        await here.on(released, {Do.RUN: self._run, Do.SEND_DECLINE: self._send_decline})

    async def receipt(self) -> None:
        """Countersign what this host saw too, enter it in the log, and keep the bundle."""
        draft = await self._talk.expect(messages.ReceiptDraft, WORK_DEADLINE_S)
        signed = receipts.countersigned(self._at, self.file, draft.envelope, self._peer_key)
        await self._talk.say(signed)
        filed = await self._talk.expect(messages.Filed, WORK_DEADLINE_S)
        receipts.keep_filed(self._at, self.file, signed, filed.bundle, self._peer_key)
        known(self._disks).learn()

    # -- the end ----------------------------------------------------------------------------------------

    async def close(self, error: BaseException | None) -> None:
        """Before ACCEPT: leave nothing here. After it: keep what was accepted, for the source to decide.

        A KororaError says that something was not undone: the journal tells how to go on.
        """
        try:
            if error is not None:
                await self._talk.abort(error)
            if self.accepted:
                self._keep_what_is_open()
            elif error is not None:
                await self._leave_nothing()
                self.monitor.withdraw()
        finally:
            self._undo.pop_all()
            await self._after.aclose()
            await self._talk.channel.close()

    async def _leave_nothing(self) -> None:
        standing = self.standing
        try:
            if standing is not None and standing.state.status is Status.LOADING:
                await standing.on(Event(On.FAILED), {})
        finally:
            await self._undo.aclose()

    def _keep_what_is_open(self) -> None:
        if known(self.standing).state.status in KEPT:
            self._keep(self._definition.name, self._in)

    # -- inside -----------------------------------------------------------------------------------------

    def _subject(self) -> Subject:
        return Subject(self.vm or "", self.session or "", self._file)

    @property
    def _session(self) -> SessionId:
        return known(self.session)

    @property
    def _binding(self) -> BlobBinding:
        return BlobBinding(self._definition.name, self._session, self._order.epoch)

    @property
    def _vtpm_in_custody(self) -> bool:
        return self._definition.vtpm and not self._definition.adopted

    @property
    def _peer_key(self) -> ec.EllipticCurvePublicKey:
        return handover.certified_key(self._talk.channel.peer_certificate)

    async def _take(self, ordered: Ordered) -> None:
        peer, vm, order = self._talk.channel.peer, ordered.definition.name, ordered.order
        admission = ordered.admitted(self._at, peer, known(self._met).peer.state)
        own = self._after.enter_context(self._reservations.held(self._owed_bytes))
        findings = await ordered.findings(self._at, partial(self._reservations.before, own))
        await self._talk.say(messages.Answer(admission.by, tuple(findings)))
        if findings:
            raise RefusedError(f"{vm} cannot come here: {len(findings)} prechecks failed", kind="precheck")
        self._at.guests.begin_move(vm)
        self._after.push_async_callback(self._at.guests.end_move, vm)
        self._file = MigrationFile(order.request, admission.request, met=self._met, rule=order.rule)
        self._file.source_allowed_by = order.authorized_by
        self._file.said = admission.said
        self.monitor.agreed_to(admission.said)
        self._file.destination_allowed_by = admission.by
        self._file.move = move_of(vm, peer, self._at.host, self._session, order.epoch)
        self.standing = Standing(self._at.journal, vm, copy=False)
        self.standing.definition = definition_text(self._definition)

    def _owed_bytes(self) -> int:
        """Memory that this VM was promised and the kernel has not allocated yet. A cold one takes none."""
        allocated = self._live is not None and self._live.allocated
        return 0 if self._order.cold or allocated else self._definition.memory_bytes + OVERHEAD_BYTES

    async def _wrapping_key(self) -> WrappingKey | None:
        if not self._vtpm_in_custody:
            return None
        nonce = wrap_nonce(known(self._met).greeted)
        forget = asyncio.to_thread
        self._after.push_async_callback(forget, self._at.tpm.forget_wrapping_key, nonce)
        return await asyncio.to_thread(self._at.tpm.create_wrapping_key, nonce, PLATFORM_PCRS)

    async def _receive_key(self) -> Secret | None:
        if not self._vtpm_in_custody:
            return None
        sent = await self._talk.expect(messages.TransferKey, WORK_DEADLINE_S)
        context = blob_context(self._definition.name, self._session, self._order.epoch)
        return await asyncio.to_thread(
            self._at.tpm.open_wrapped,
            wrap_nonce(known(self._met).greeted),
            WrappedKey(sent.ephemeral, sent.ciphertext),
            context,
        )

    async def _open_for_data(self, inbound: Inbound) -> None:
        streams = self._order.rule.streams
        relay = self._destination_relay(inbound.socket, range(streams))
        await inbound.start(relay, StreamSettings(channels=streams - 1), self._key, self._binding)

    def _destination_relay(
        self, deliver_to: Path, streams: Iterable[int], *, eager: bool = False
    ) -> DestinationRelay:
        """One whose tickets are awaited from now on, until the move ends."""
        rule, export = self._order.rule, self._talk.channel.export_key
        keys = [stream_keys(export, self._session, number) for number in streams]
        relay = DestinationRelay(
            deliver_to=deliver_to,
            keys=keys,
            chunk_bytes=rule.chunk_bytes,
            stall_deadline_s=self._at.stall_deadline_s,
            eager=eager,
        )
        tickets = [key.ticket for key in keys]
        self._at.reception.expect(tickets, relay)
        self._after.callback(self._at.reception.forget, tickets)
        return relay

    async def _arrived(self, rest: Awaitable[Carried]) -> Carried:
        """Memory or a vTPM at rest, and disks, with the VM paused or stopped on both sides."""
        loaded = await rest
        crossed = await known(self._disks).arrived()
        if crossed is None:
            return loaded
        self.file.disks = storage.as_moved(crossed.contents, self._brought, self._order.disks)
        return crossed.added_to(loaded)

    def _keep_what_came_beside(self, boots: bytes | None) -> None:
        """What is not in the stream, held against the manifest. Boots are appraised once the VM is here."""
        directory = self._at.guests.directory(self._definition.name)
        here = survey.file_digests(directory, self._brought, boots, self.file.dossier)
        unseen = set() if self._order.cold else {survey.VARIABLES}
        handover.refuse_other_files(self.file, here, unseen=unseen)
        self._at.guests.lay_boot_record(self._definition.name, boots)
        dossier.lay(directory, self._dossier)

    async def _watching(self, work: Coroutine[Any, Any, T]) -> T:
        return await while_watching(work, self._talk.listen_for_abort())

    async def _watching_for_manifest(self, work: Coroutine[Any, Any, T]) -> T:
        """The manifest comes as soon as the source has sent all, maybe before all is loaded here."""

        async def listen() -> None:
            self._manifest = await self._talk.expect(messages.Manifest, None)
            await self._talk.listen_for_abort()

        return await while_watching(work, listen())

    async def _send_accept(self) -> None:
        for procedure in (Procedure.MEASURE, Procedure.VERIFY, Procedure.ACCEPT):
            self.monitor.did(procedure)
        await self._talk.say(messages.Accept(known(self.file.accept)))

    async def _run(self) -> None:
        here = known(self.standing)
        self.monitor.did(Procedure.RELEASE)
        done = await self._in.run()
        if done.ran is Ran.YES:
            await here.on(Event(On.RUN_SUCCEEDED), {})
            self._in.admit(self._at.guests, self._order.epoch)
            await self._send_running()
            return
        self._refusal = done.reason
        if done.ran is Ran.NO:
            await here.on(Event(On.RUN_REFUSED), {Do.SEND_DECLINE: self._send_decline})
        raise ToolError(f"{self._definition.name} does not run here: {done.reason}", kind="not-run")

    async def _send_running(self) -> None:
        self.file.running = handover.running(self._at, self.file)
        self.monitor.did(Procedure.RUN)
        await self._talk.say(messages.Running(self.file.running))

    async def _send_decline(self) -> None:
        await self._talk.say(messages.Decline(handover.decline(self._at, self.file, self._refusal)))
        self.monitor.did(Procedure.RELEASE)
        self.monitor.did(Procedure.RECLAIM)
