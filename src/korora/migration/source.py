"""The source's side of the story: the host that has the VM, and lets it go.

Promise: until RELEASE is durable, every failure and every cancel leaves the VM running here, as it was.
The phases are those of `phases.depart`, in that order.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec

from korora.agents.dataplane import SourceRelay
from korora.errors import KororaError, PeerError, RefusedError
from korora.migration import inspection
from korora.migration.crossing.cold import take_out
from korora.migration.crossing.disks.departing import Departing
from korora.migration.crossing.disks.keeping import keeping_of
from korora.migration.crossing.first_run import is_there
from korora.migration.crossing.outbound import SOCKET, Outbound
from korora.migration.crossing.subject import find_subject, limits_of
from korora.migration.crossing.vigil import SYMPTOMS, while_watching
from korora.migration.crossing.wiping import wipe_source
from korora.migration.greeting import gate, survey
from korora.migration.greeting.conversation import WORK_DEADLINE_S, Conversation
from korora.migration.greeting.meeting import meet_as_source
from korora.migration.greeting.refusals import refuse_changed_boot, refuse_findings, refuse_unsettled
from korora.migration.known import known
from korora.migration.monitor import Monitor, Subject
from korora.migration.papers import docket, handover, receipts
from korora.migration.papers.file import MigrationFile
from korora.migration.recovery.standing import Hand, Standing
from korora.migration.setting import Setting
from korora.migration.teller import Teller
from korora.model.definition import definition_text
from korora.model.identity import Secret, SessionId, VmName
from korora.model.ownership import Do, Event, On, Status
from korora.model.plan import Mode
from korora.model.question import Said
from korora.policy.machine.language.vocabulary import Procedure
from korora.policy.precheck import PRECHECKS
from korora.ports.hypervisor import StreamSettings
from korora.ports.vtpm import BlobBinding
from korora.protocol import messages, statements
from korora.protocol.frames import stream_keys
from korora.protocol.handshake import choose_rule, wrap_nonce
from korora.protocol.key_wrap import wrap
from korora.protocol.statements import move_of
from korora.protocol.vtpm_blob import blob_context
from korora.supervision.live import LiveVm

T = TypeVar("T")


class Departure:
    """One migration, as its source lives it."""

    def __init__(
        self, setting: Setting, teller: Teller, envelope: bytes, address: str | None, *, channels: int
    ) -> None:
        self._at = setting
        self._tell = teller
        self._channels = channels
        self.file = MigrationFile(
            envelope, statements.peek_request(envelope), begun_at=setting.clock.monotonic()
        )
        self._address = address or setting.address_of(self.file.request.destination)
        self._undo = AsyncExitStack()  # so that the VM is as it was
        self._after = AsyncExitStack()  # in any case
        self._talk: Conversation | None = None
        self._key: Secret | None = None
        self._cold_state: bytes | None = None
        self._boots: bytes | None = None
        self._disks: Departing | None = None
        self._admission: gate.Admission | None = None
        self.standing: Standing | None = None
        self.monitor = Monitor(setting, "source", self._subject)

    @property
    def released(self) -> bool:
        """Whether the point of no return is behind: the VM is not this host's to run any more."""
        return self.standing is not None and not self.standing.state.owns

    @property
    def vm(self) -> VmName:
        return self.file.request.vm

    @property
    def session(self) -> SessionId | None:
        return self.file.met.greeted.session if self.file.met is not None else None

    async def break_off(self) -> None:
        if self._talk is not None:
            await self._talk.channel.close()

    # -- the phases -------------------------------------------------------------------------------------

    async def authorize(self) -> None:
        """Ask this host's own policy; the destination asks its own before it answers the order."""
        request = self.file.request
        self._vm = find_subject(self._at, request.vm, request.mode)
        admission = gate.admit(
            self._at, self.file.envelope, source=self._at.host, destination=request.destination
        )
        self._admission, self.file.source_allowed_by = admission, admission.by
        self._agreed_by(admission.said)
        self._at.guests.begin_move(request.vm)
        self._after.push_async_callback(self._at.guests.end_move, request.vm)
        standing = Standing(self._at.journal, request.vm, copy=True)
        refuse_unsettled(standing.state, request.vm)
        self.standing = standing

    async def attest(self) -> None:
        channel = await self._at.dial(self.file.request.destination, self._address)
        self._after.push_async_callback(channel.close)
        self._talk = Conversation(channel)
        self.file.met = await meet_as_source(self._talk, self._at.host, self._at.attester, self._at.verify)
        self.file.move = move_of(
            self.file.request.vm,
            self._at.host,
            self.file.request.destination,
            self.file.met.greeted.session,
            known(self.standing).state.epoch + 1,
        )

    async def agree(self) -> None:
        """Order and prechecks: every finding is in one refusal. The policy is asked again, now that the other
        host's state is known."""
        said = gate.confirm(self._at, known(self._admission), known(self.file.met).peer.state)
        if self.file.said is None:
            self._agreed_by(said)
        talk, vm, met = known(self._talk), self._vm.definition, known(self.file.met)
        self.file.rule = choose_rule(
            met.greeted,
            tls_version=talk.channel.tls_version,
            tls_group=talk.channel.tls_group,
            streams=self._channels + 1,
        )
        self._disks = Departing(self._at, self._vm, self.file.request.disks, self._tell)
        await talk.say(
            messages.Order(
                request=self.file.envelope,
                authorized_by=known(self.file.source_allowed_by),
                definition=definition_text(vm),
                facts=await survey.source_facts(self._at, vm, self._vm.machine),
                rule=self.file.rule,
                epoch=self._epoch,
                cold=self._vm.live is None,
                dry_run=False,
                adopted=vm.adopted,
                disks=await self._disks.choose(),
            )
        )
        answer = await talk.expect(messages.Answer, WORK_DEADLINE_S)
        refuse_findings(answer.findings, vm.name, self._at.host)
        self.file.destination_allowed_by = answer.authorized_by
        self.file.prechecks = PRECHECKS

    async def baseline(self) -> None:
        """Look into the VM, if policy asks for it. Send what was found, and what must lie ready there;
        receive the proof of clean memory and the key to wrap for."""
        talk, vm = known(self._talk), self._vm.definition
        if self._vm.live is not None:
            self.file.boot = await self._at.guests.boot_verdict(vm.name)
            refuse_changed_boot(self.file.boot, vm.name, self._at.host)
        await inspection.look(self._at, talk, self._vm, self.file, self._tell)
        await inspection.enclose(talk, self._vm, self.file)
        store, inspected = survey.variables(self._vm.directory, vm), self.file.inspection is not None
        await talk.say(messages.Prepare(store, inspected=inspected))
        ready = await talk.expect(messages.Ready, WORK_DEADLINE_S)
        self.file.clean_memory, self.file.wrapping = ready.clean_memory, ready.wrapping_key
        if self._vm.vtpm_in_custody:
            self._key = await self._hand_over_key(ready)
        known(self._disks).heard(await talk.expect(messages.Open, WORK_DEADLINE_S))

    async def transfer(self) -> None:
        """Disks, then the pre-copy of memory, until the guest is paused with little left to send.

        A stopped VM has no memory to copy.
        """
        first = known(self.file.rule).streams
        await known(self._disks).copy(
            known(self._talk),
            lambda socket, number: self._source_relay(socket, [first + number]),
            self._undo,
        )
        if self._vm.live is None:
            return
        self._out = self._outbound(self._vm.live)
        self._undo.push_async_callback(self._out.abandon, "the migration stopped")
        suspend = self.file.request.mode is Mode.OFFLINE
        if suspend:
            self.file.paused_at = self._at.clock.monotonic()
        await self._watching(self._out.start(self._key, self._binding, suspend=suspend))
        await self._watching(self._out.until_switchover(self._tell.read))
        if not suspend:
            self.file.paused_at = self._at.clock.monotonic()

    async def switch_over(self) -> None:
        """The last of the disks, pages, devices and the vTPM; then the signed manifest. The VM is paused on
        both sides."""
        crossed = await known(self._disks).cut(known(self._talk))
        if self._vm.live is not None:
            sent = await self._watching(self._out.switch_over())
        else:
            sent, self._cold_state = await take_out(self._at, self._vm, self._key, self._binding)
        self.file.sent = crossed.added_to(sent) if crossed is not None else sent
        self.file.disks = crossed.contents if crossed is not None else ()
        self._boots = self._at.guests.boot_record(self.vm)  # all that the guest said before it stopped
        self.file.files = survey.file_digests(
            self._vm.directory, self._vm.definition, self._boots, self.file.dossier
        )
        self.file.manifest = handover.manifest(self._at, self.file)
        self._enter_docket()
        offered = Event(On.OFFERED, self._session, peer=self.file.request.destination)
        await known(self.standing).on(offered, {Do.SEND_MANIFEST: self._send_manifest})

    async def verify(self) -> None:
        """The destination's signed word that all of it arrived, held against what was sent."""
        # The guest is paused: whoever is silent now is given up as soon as a data connection would be.
        said = await known(self._talk).expect(messages.Accept, self._at.stall_deadline_s)
        self.file.accept = said.envelope
        self.file.received = handover.accepted(self.file, self._peer_key)

    async def commit(self) -> None:
        """RELEASE is durable before it is sent; from here on the VM is the destination's."""
        self._enter_docket()
        accepted = Event(On.ACCEPT, self._session, epoch=self._epoch)
        await known(self.standing).on(accepted, {Do.SEND_RELEASE: self._send_release})
        words = (messages.Running, messages.Decline)
        answer = await known(self._talk).expect_one_of(words, self._at.stall_deadline_s)
        self.file.resumed_at = self._at.clock.monotonic()
        if isinstance(answer, messages.Decline):
            await self._take_back(answer)
        handover.note_running(self.file, answer.envelope, self._peer_key)

    async def wipe(self) -> None:
        """It runs there. What is left of it here is destroyed, and the certificate says how well."""
        running = Event(On.RUNNING, self._session, epoch=self._epoch)
        await known(self.standing).on(running, {Do.WIPE: self._wipe})
        await known(self.standing).on(Event(On.WIPE_DONE), {})

    async def receipt(self) -> None:
        """Both sign one receipt; it goes into both logs, and as a bundle into both hosts' files."""
        talk = known(self._talk)
        self.file.limits += limits_of(self._vm, self.file)
        draft = receipts.draft(self._at, self.file, self._tell.timings_ms)
        await talk.say(messages.ReceiptDraft(draft))
        answer = await talk.expect(messages.Countersigned)
        bundle = receipts.file_bundle(self._at, self.file, answer, self._peer_key)
        await talk.say(messages.Filed(bundle))

    # -- the end ----------------------------------------------------------------------------------------

    async def close(self, error: BaseException | None) -> None:
        """Undo what was done, unless the VM is the destination's already.

        A KororaError says that something was not undone: the journal tells how to go on.
        """
        try:
            if not self.released:
                await self._give_up(error)
                self.monitor.withdraw()
        finally:
            self._undo.pop_all()
            await self._after.aclose()

    async def _give_up(self, error: BaseException | None) -> None:
        """The guest never waits for a peer that may not listen."""
        if self.standing is not None and self.standing.state.status is Status.OFFERED:
            await self._withdraw()
        elif error is not None and self._talk is not None:
            await asyncio.gather(self._talk.abort(error), self._undo.aclose())
        await self._undo.aclose()

    async def _withdraw(self) -> None:
        """The journal says that it was never released; then the VM goes on here; then the peer is told."""
        standing, live = known(self.standing), self._vm.live
        if live is not None and not await is_there(live.machine):
            await standing.on(Event(On.HYPERVISOR_FAILED), {})
        hands: dict[Do, Hand] = {Do.RESUME: self._undo.aclose, Do.SEND_CLOSED: self._send_closed}
        await standing.on(Event(On.FAILED), hands)

    # -- inside -----------------------------------------------------------------------------------------

    def _agreed_by(self, said: Said | None) -> None:
        self.file.said = said
        self.monitor.agreed_to(said)

    def _subject(self) -> Subject:
        return Subject(self.vm, self.session or "", self.file)

    @property
    def _session(self) -> SessionId:
        return known(self.file.met).greeted.session

    @property
    def _epoch(self) -> int:
        return known(self.file.move).epoch

    @property
    def _binding(self) -> BlobBinding:
        return BlobBinding(self.file.request.vm, self._session, self._epoch)

    @property
    def _peer_key(self) -> ec.EllipticCurvePublicKey:
        return handover.certified_key(known(self._talk).channel.peer_certificate)

    async def _watching(self, work: Coroutine[Any, Any, T]) -> T:
        """Work while listening: the destination may give up at any moment, and knows why a stream failed."""
        watches = [known(self._talk).listen_for_abort()]
        if self._disks is not None:
            watches.append(self._disks.failed())
        return await while_watching(work, *watches, symptoms=SYMPTOMS)

    def _outbound(self, live: LiveVm) -> Outbound:
        out = self._at.guests.directory(live.definition.name) / SOCKET
        streams = known(self.file.rule).streams
        relay = self._source_relay(out, range(streams))
        settings = StreamSettings(channels=streams - 1)
        return Outbound(live.machine, live.vtpm, relay, out, settings, self._at.clock)

    def _source_relay(self, listen_on: Path, streams: Iterable[int]) -> SourceRelay:
        export = known(self._talk).channel.export_key
        return SourceRelay(
            listen_on=listen_on,
            connect=lambda: self._at.dial_data(self._address),
            keys=[stream_keys(export, self._session, number) for number in streams],
            chunk_bytes=known(self.file.rule).chunk_bytes,
            stall_deadline_s=self._at.stall_deadline_s,
        )

    async def _hand_over_key(self, ready: messages.Ready) -> Secret:
        """A fresh key for the vTPM's blobs, openable only by the destination's attested TPM."""
        if ready.wrapping_key is None:
            raise PeerError(
                "the destination showed no key to wrap the vTPM's key for", kind="no-wrapping-key"
            )
        met, key = known(self.file.met), Secret(secrets.token_bytes(32))
        wrapped = wrap(
            key,
            ready.wrapping_key,
            ak_public=met.peer.presented.ak_public,
            nonce=wrap_nonce(met.greeted),
            pcrs=met.peer.evidence.pcrs,
            context=blob_context(self.file.request.vm, self._session, self._epoch),
            ephemeral=ec.generate_private_key(ec.SECP256R1()),
        )
        await known(self._talk).say(messages.TransferKey(wrapped.ephemeral, wrapped.ciphertext))
        return key

    async def _send_manifest(self) -> None:
        manifest = known(self.file.manifest)
        self.monitor.did(Procedure.SWITCHOVER)
        self.monitor.did(Procedure.MEASURE)
        await known(self._talk).say(messages.Manifest(manifest, self._cold_state, self._boots))

    async def _send_release(self) -> None:
        self.file.release = handover.release(self._at, self.file)
        docket.note_release(self._at, self._session, self.file.release)
        self.monitor.did(Procedure.RELEASE)
        await known(self._talk).say(messages.Release(self.file.release))

    async def _send_closed(self) -> None:
        with suppress(KororaError):  # it asks, if it does not hear
            await known(self._talk).say(messages.Closed(self._session))

    def _enter_docket(self) -> None:
        cold = self._vm.live is None
        docket.enter(self._at, self.file, role="source", address=self._address, cold=cold)

    async def _wipe(self) -> None:
        keeping = keeping_of(self._at, self.file)
        self.file.wiped = await wipe_source(self._at, self._vm, self.file.request.disks.names, keeping)

    async def _take_back(self, answer: messages.Decline) -> None:
        """The destination never ran it and durably never will: it runs on here, with the next epoch."""
        declined = handover.declined(self.file, answer.envelope, self._peer_key)
        event = Event(On.DECLINE, self._session, epoch=self._epoch)
        hands: dict[Do, Hand] = {Do.SEND_CLOSED: self._send_closed}
        if self._vm.live is not None:
            hands[Do.RESUME] = partial(self._out.abandon, "the destination declined")
        await known(self.standing).on(event, hands)
        self.monitor.did(Procedure.RECLAIM)
        raise RefusedError(
            f"host {self.file.request.destination} could not run {self.file.request.vm}: {declined.reason}",
            kind="declined",
            remedy="see the log of the VM there; nothing was lost",
            vm_runs_on=self._at.host,
        )
