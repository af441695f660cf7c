"""The VMs of this host: started, stopped, adopted, found again after a restart, and watched.

Promise: a VM is started only while the journal says that this host owns it, and never while it moves.
Limit: this room runs VMs; it hands none over. Changes of ownership are `migration`'s to write.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import structlog

from korora.errors import KororaError, ToolError, UsageError
from korora.model.definition import definition_text, parse_definition
from korora.model.identity import VmName, checked_name
from korora.model.ownership import NOTHING, Event, On, Refused, Status
from korora.model.vm import HypervisorFacts, VmDefinition
from korora.ports.clock import Clock, SystemClock
from korora.ports.hypervisor import Hypervisor, Machine, Place
from korora.ports.journal import Journal, VmRecord
from korora.ports.vtpm import Vtpm, VtpmAgent
from korora.protocol import ownership
from korora.supervision import refusals
from korora.supervision.boots import record as boot_files
from korora.supervision.boots.appraiser import BootAppraiser, GuestBootAppraiser
from korora.supervision.boots.record import BootVerdict, BootWord
from korora.supervision.live import LiveVm, VmStatus, picture
from korora.supervision.recovery import Recovery
from korora.supervision.refusals import checked_owner, may_run, owned
from korora.supervision.roster import Roster
from korora.supervision.watch import Watches

POWER_DOWN_DEADLINE_S = 60.0

_log = structlog.get_logger("korora.supervision")


class Guests:
    """All methods belong on the daemon's event loop. One VM's start, stop and end never overlap."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        vtpm_agent: VtpmAgent,
        journal: Journal,
        vms_directory: Path,
        *,
        appraiser: BootAppraiser | None = None,
        clock: Clock | None = None,
        watches: Watches | None = None,
    ) -> None:
        self._hypervisor = hypervisor
        self._vtpm_agent = vtpm_agent
        self._journal = journal
        self._vms_directory = vms_directory
        clock = clock or SystemClock()
        watches = watches or Watches(appraiser or GuestBootAppraiser(), clock)
        self._roster = Roster(vtpm_agent, journal, watches, clock)
        self._recovery = Recovery(self._roster, hypervisor, vtpm_agent, journal, vms_directory)

    # -- to look ----------------------------------------------------------------------------------------

    async def facts(self) -> HypervisorFacts:
        return await self._hypervisor.facts()

    def live(self, name: str) -> LiveVm:
        """The running VM. UsageError unknown-vm; RefusedError not-owner, not-running; or unresponsive."""
        live = self._roster.live(VmName(name))
        if live is not None:
            return live
        record = self._known(name)
        self._recovery.check(record.name)
        raise refusals.not_running(name) if owned(record) else refusals.not_owner(record)

    async def status(self, name: str) -> VmStatus:
        """What `vm show` tells. UsageError unknown-vm."""
        return await self._status_of(self._known(name))

    async def statuses(self) -> list[VmStatus]:
        """All VMs this host knows, also those that moved away, by name."""
        records = sorted(self._records(), key=lambda record: record.name)
        return list(await asyncio.gather(*(self._status_of(record) for record in records)))

    def counts(self) -> dict[str, int]:
        return {
            "known": len(self._records()),
            "running": len(self._roster.everyone()),
            "moving": self._roster.moves(),
        }

    async def boot_verdict(self, name: str) -> BootVerdict:
        """What the VM booted, compared with its PCRs as they are now. For the precheck of a migration."""
        live = self.live(name)
        verdict = await self._roster.judged(live.definition.name)
        if verdict is None or live.vtpm is None:
            return BootVerdict(BootWord.UNMEASURED)
        return verdict.still_holds((await live.vtpm.identity()).pcrs)

    # -- to define, start and stop ----------------------------------------------------------------------

    async def define(self, text: str) -> VmDefinition:
        """Remember a VM that this host shall own, or change one that is stopped. UsageError, RefusedError."""
        definition = _own_definition(text)
        async with self._roster.alone(definition.name):
            if self._roster.live(definition.name):
                raise refusals.running(definition.name)
            self._recovery.check(definition.name)
            record = checked_owner(self._record_or_new(definition.name))
            self._journal.write_vm(replace(record, definition=text, qmp_socket=None))
        return definition

    async def run(self, text: str) -> LiveVm:
        """Define and start. On failure the journal knows the VM no more, or no otherwise, than before."""
        before = self._journal.vm(_own_definition(text).name)
        definition = await self.define(text)
        try:
            return await self.start(definition.name)
        except BaseException:
            if before is not None:
                self._journal.write_vm(before)
            else:
                await self._forget(definition)
            raise

    async def start(self, name: str) -> LiveVm:
        """Start a stopped VM that this host owns. On failure no process is left."""
        async with self._roster.alone(VmName(name)):
            definition = parse_definition(checked_owner(self._known(name)).definition)
            if self._roster.live(definition.name):
                raise refusals.running(name)
            if definition.adopted:
                raise refusals.adopted_elsewhere(name)
            self._recovery.check(definition.name)
            live = await self._boot(definition)
            self._roster.enter(live, "started by request")
            return live

    async def stop(self, name: str, *, force: bool = False) -> None:
        """Shut the guest down, or with `force` end it now. ToolError leaves it as it is."""
        async with self._roster.alone(VmName(name)):
            live = self.live(name)
            # A paused VM whose hand-over is not settled may be the last copy there is.
            checked_owner(self._known(name))
            if force:
                await live.machine.quit()
            else:
                await live.machine.power_down(POWER_DOWN_DEADLINE_S)
            await self._roster.settle(live, "ended by request" if force else "shut down by request")

    async def adopt(self, qmp_socket: Path, name: str | None = None) -> LiveVm:
        """Supervise a QEMU that somebody else started. On failure it goes on unsupervised."""
        machine = await self._hypervisor.adopt(qmp_socket)
        try:
            vm = VmName(checked_name(name or machine.definition.name, "VM name"))
            async with self._roster.alone(vm):
                self._refuse_twin(machine, vm)
                definition = replace(machine.definition, name=vm, adopted=True)
                self._journal.write_vm(self._adoption(definition, qmp_socket))
                live = LiveVm(definition, machine, None, Place(self.directory(vm), None))
                self._roster.enter(live, "adopted by request")
                return live
        except BaseException:
            await machine.close()
            raise

    # -- to look into -----------------------------------------------------------------------------------

    @contextmanager
    def looking_into(self, name: str) -> Iterator[tuple[VmDefinition, Path, LiveVm | None]]:
        """A VM that this host owns, as it runs or rests: nobody starts, stops or moves it meanwhile.

        UsageError unknown-vm; RefusedError not-owner, moving, busy; or unresponsive.
        """
        record = checked_owner(self._known(name))
        self._recovery.check(record.name)
        with self._roster.looking_into(record.name):
            live = self._roster.live(record.name)
            definition = live.definition if live is not None else parse_definition(record.definition)
            yield definition, self.directory(record.name), live

    def names(self) -> list[VmName]:
        """All VMs that this host knows."""
        return sorted(record.name for record in self._records())

    def known_directory(self, name: str) -> Path:
        """UsageError unknown-vm."""
        return self._vms_directory / self._known(name).name

    def staying(self) -> list[LiveVm]:
        """Those that are live here, and do not move."""
        return [live for live in self._roster.everyone() if not self._roster.moving(live.definition.name)]

    def is_live(self, name: str, live: LiveVm) -> bool:
        """Whether it is this process of the VM that is live, and none that came after it."""
        return self._roster.live(VmName(name)) is live

    def refuse_busy(self, name: str) -> None:
        """RefusedError moving, or busy while it is started, stopped or looked into."""
        self._roster.refuse_busy(VmName(name))

    # -- for migrations ---------------------------------------------------------------------------------

    def place(self, name: str) -> Path:
        """Where its directory is, or would be."""
        return (self._vms_directory / checked_name(name, "VM name")).absolute()

    def directory(self, name: str) -> Path:
        """The VM's private directory on this host; made if it is not there. Absolute."""
        directory = self.place(name)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
        except OSError as problem:
            raise ToolError(
                f"cannot make {directory}: {problem.strerror}",
                kind="state-directory",
                remedy="see that the daemon's state directory is writable and has room",
            ) from problem
        return directory

    def begin_move(self, name: str) -> None:
        """Lock a name, known here or not, until `end_move`. RefusedError moving, busy; or unresponsive."""
        vm = VmName(checked_name(name, "VM name"))
        self._recovery.check(vm)
        self._roster.begin_move(vm)

    async def end_move(self, name: str) -> None:
        """Unlock; then a VM whose process ended meanwhile is recorded as stopped. Idempotent."""
        await self._roster.end_move(VmName(name))

    def admit(
        self,
        definition: VmDefinition,
        machine: Machine,
        vtpm: Vtpm | None,
        place: Place,
        epoch: int,
    ) -> LiveVm:
        """Take in a VM that arrived; its boot is appraised again here, by what `lay_boot_record` laid.

        The journal must already let the VM run here with this epoch: RefusedError not-owner otherwise.
        """
        record = self._known(definition.name)
        if not may_run(record) or record.epoch != epoch:
            raise refusals.not_owner(record)
        live = LiveVm(definition, machine, vtpm, place)
        self._roster.enter(live, f"arrived from host {record.peer or 'unknown'} with epoch {epoch}")
        return live

    async def release(self, name: str) -> None:
        """Let go of a VM that left. Its record stays, its process is not touched, its machine not closed."""
        live = self._roster.live(VmName(name))
        if live is not None:
            self._roster.let_go(live, "moved away")

    def boot_record(self, name: str) -> bytes | None:
        """Event log and baseline of a VM that stands still, for `lay_boot_record` on the other side."""
        return boot_files.pack(self._vms_directory / checked_name(name, "VM name"))

    def lay_boot_record(self, name: str, packed: bytes | None) -> None:
        """Put what came of a VM's boots beside it, before it runs here. ToolError."""
        boot_files.take_over(self.directory(name), packed)

    def remains(self, name: str) -> bool:
        """Whether the VM's directory is here, whoever owns the VM."""
        return (self._vms_directory / checked_name(name, "VM name")).is_dir()

    def unclear(self, name: str) -> bool:
        """Whether it cannot be told at present if a process of this VM lives here."""
        return self._recovery.unclear(VmName(name))

    # -- the daemon's own life --------------------------------------------------------------------------

    async def recover(self) -> None:
        """Find again what runs, note what died meanwhile, start nothing."""
        await self._recovery.run()

    async def close(self) -> None:
        """Let go of everything; the VMs go on."""
        self._recovery.close()
        await self._roster.close()

    # -- inside -----------------------------------------------------------------------------------------

    def _known(self, name: str) -> VmRecord:
        record = self._journal.vm(VmName(name))
        if record is None or record.ownership == Status.ABSENT:
            raise refusals.unknown_vm(name, [record.name for record in self._records()])
        return record

    def _records(self) -> list[VmRecord]:
        """Of a VM that is absent only the epoch is remembered: nobody needs to see that."""
        return [record for record in self._journal.vms() if record.ownership != Status.ABSENT]

    def _record_or_new(self, name: VmName) -> VmRecord:
        """The VM's record; a name that was never known here begins its life by the ownership table."""
        record = self._journal.vm(name)
        step = ownership.step(NOTHING, Event(On.CREATED))
        if record is not None or isinstance(step, Refused):
            return record or VmRecord(name, "", Status.ABSENT, 0)
        return VmRecord(name, "", step.state.status, step.state.epoch)

    async def _boot(self, definition: VmDefinition) -> LiveVm:
        directory = self.directory(definition.name)
        boot_files.forget_boot(directory)
        vtpm = None
        try:
            if definition.vtpm:
                vtpm = await self._vtpm_agent.start(definition.name, directory)
            place = Place(directory, vtpm.socket if vtpm else None)
            machine = await self._hypervisor.start(definition, place, incoming=False)
        except BaseException:
            if vtpm is not None:
                await self._vtpm_agent.stopped(definition.name, directory)
            raise
        return LiveVm(definition, machine, vtpm, place)

    async def _forget(self, definition: VmDefinition) -> None:
        """Undo a first definition whose start failed."""
        self._journal.forget_vm(definition.name)
        directory = self.directory(definition.name)
        if definition.vtpm:
            with suppress(KororaError):
                await self._vtpm_agent.wipe(definition.name, directory)
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    def _refuse_twin(self, machine: Machine, name: VmName) -> None:
        for live in self._roster.everyone():
            if live.machine.pid == machine.pid:
                raise refusals.supervised_already(live.definition.name)
        if self._roster.live(name):
            raise refusals.running(name)

    def _adoption(self, definition: VmDefinition, qmp_socket: Path) -> VmRecord:
        record = self._record_or_new(definition.name)
        if record.definition and record.qmp_socket is None:
            raise refusals.name_taken(definition.name)
        # An adopted VM that moved away must not come to life again from what it left here.
        owner = checked_owner(record)
        return replace(owner, definition=definition_text(definition), qmp_socket=str(qmp_socket))

    async def _status_of(self, record: VmRecord) -> VmStatus:
        directory = self._vms_directory / record.name
        status = await picture(record, self._roster.live(record.name), directory)
        moving = self._roster.moving(record.name)
        files, trouble = ((), None) if moving else self._not_in_disks(directory)
        return replace(
            status,
            state=None if self._recovery.unclear(record.name) else status.state,
            moving=moving,
            not_in_disks=files,
            disks_trouble=trouble,
            boot=self._roster.verdict(record.name) or status.boot,
        )

    def _not_in_disks(self, directory: Path) -> tuple[tuple[str, ...], KororaError | None]:
        try:
            return tuple(self._hypervisor.replacements(directory)), None
        except KororaError as error:
            return (), error


def _own_definition(text: str) -> VmDefinition:
    """A definition that somebody hands in; whether a VM is adopted is not theirs to write."""
    definition = parse_definition(text)
    if definition.adopted:
        raise UsageError(
            f"VM {definition.name} is marked as adopted, so its definition is not one to start",
            kind="bad-definition",
            remedy="remove `adopted`, or adopt the running QEMU: korora vm adopt SOCKET",
        )
    return definition
