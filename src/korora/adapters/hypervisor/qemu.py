"""QEMU as Korora's hypervisor (H1): starts VMs in a sandbox, finds them again after a restart, adopts others.

What a definition leaves open (a machine alias, the accelerator) is pinned when the VM starts and recorded, so
that it is the same after every move.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from korora.adapters.hypervisor import network, process
from korora.adapters.hypervisor.adoption.adopt import adopt
from korora.adapters.hypervisor.adoption.files import files_of, images_of
from korora.adapters.hypervisor.adoption.launch import adopted_arguments, refuse_foreign_hardware
from korora.adapters.hypervisor.command_line import Launch, arguments, firmware_files
from korora.adapters.hypervisor.disks.at_rest import DisksAtRest, disks_at_rest
from korora.adapters.hypervisor.disks.folding import fold_back
from korora.adapters.hypervisor.disks.making import make_disk
from korora.adapters.hypervisor.disks.overlay import files as overlays
from korora.adapters.hypervisor.disks.overlay import fold_back_at_rest
from korora.adapters.hypervisor.disks.replacement import Claims
from korora.adapters.hypervisor.images import refuse_escaping_images, refuse_unfinished_images
from korora.adapters.hypervisor.machine import Ends, QemuMachine, forget
from korora.adapters.hypervisor.probe import facts as probing
from korora.adapters.hypervisor.probe.accelerator import Verdict, working_accelerator
from korora.adapters.hypervisor.probe.cache import Cache
from korora.adapters.hypervisor.process import Process, ProcessRecord
from korora.adapters.hypervisor.qmp import Qmp
from korora.adapters.hypervisor.sampling.guard import Guard
from korora.adapters.hypervisor.sampling.sampler import quiet
from korora.adapters.hypervisor.snapshot import graph
from korora.errors import ToolError, UsageError
from korora.model.definition import definition_text, parse_definition
from korora.model.vm import Disk, HypervisorFacts, VmDefinition
from korora.ports.hypervisor import HardwareFiles, Place

START_DEADLINE_S = 60.0
ATTACH_DEADLINE_S = 10.0
UNRECORDED_DEADLINE_S = 2.0
GUESTS_TRIED_AT_ONCE = 2
VARIABLES = "variables.fd"


class Qemu:
    """A Hypervisor (ports.hypervisor). `cache` is a directory for the answers of slow probes."""

    def __init__(
        self,
        cache: Path,
        binary: str = "qemu-system-x86_64",
        *,
        swtpm: str = "swtpm",
        probe_kernel: Path | None = None,
    ) -> None:
        self._binary = binary
        self._swtpm = swtpm
        self._cache = Cache(cache)
        self._guard = Guard()
        self._claims = Claims()
        self._probe_kernel = probe_kernel
        self._probing = asyncio.Lock()
        self._trying = asyncio.Semaphore(GUESTS_TRIED_AT_ONCE)

    async def facts(self) -> HypervisorFacts:
        found = await self._qemu_facts()
        verdict = await self._accelerator()
        return HypervisorFacts(
            name="qemu",
            version=found.version,
            machines=tuple(sorted({*found.machines, *found.aliases})),
            cpu_models=found.cpu_models,
            accelerator=verdict.name,
            accelerator_note=verdict.note,
            capabilities=found.capabilities,
            swtpm_version=await probing.swtpm_version(self._swtpm, self._cache),
            firmware=probing.firmware_images(),
        )

    async def cpu_features(self, definition: VmDefinition) -> dict[str, bool]:
        pinned = await self.pinned(definition)
        async with self._trying:  # other hosts ask for this, as often as they like
            return await probing.cpu_features(self._binary, self._cache, pinned)

    def files(self, definition: VmDefinition) -> HardwareFiles:
        if definition.hardware:
            refuse_foreign_hardware(definition)
        return files_of(definition.hardware)

    async def pinned(self, definition: VmDefinition) -> VmDefinition:
        """The definition with what it left open decided for this host: machine, accelerator, firmware."""
        aliases = (await self._qemu_facts()).aliases
        accelerator = definition.accelerator
        if accelerator == "auto":
            accelerator = (await self._accelerator()).name
        code, variables = firmware_files(definition) or (None, None)
        return replace(
            definition,
            machine=aliases.get(definition.machine, definition.machine),
            accelerator=accelerator,
            firmware_code=code,
            firmware_variables=variables,
        )

    async def start(self, definition: VmDefinition, place: Place, *, incoming: bool) -> QemuMachine:
        """Start it. A fresh one runs when this returns; on failure it never ran and nothing is left."""
        _refuse_what_cannot_start(definition, incoming=incoming)
        pinned = await self.pinned(definition)
        place.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        await _refuse_second(definition, place)
        await asyncio.to_thread(_refuse_escaping_images, pinned)
        await asyncio.to_thread(refuse_unfinished_images, pinned.disks)
        if not incoming:  # else it is a disk from before some writes of the guest
            await fold_back_at_rest(place.directory)
        _lay_out_variables(pinned, place, incoming=incoming)
        machine = await self._launched(pinned, place, incoming=incoming)
        try:
            if not incoming:
                await machine.resume()
        except BaseException:
            await machine.quit()
            raise
        return machine

    async def make_disk(self, disk: Disk, size: int) -> None:
        await make_disk(disk, size)

    async def disks_at_rest(self, disks: Sequence[Disk], directory: Path, *, writable: bool) -> DisksAtRest:
        await asyncio.to_thread(refuse_escaping_images, disks)
        await asyncio.to_thread(refuse_unfinished_images, disks)
        await fold_back_at_rest(directory)
        return await disks_at_rest(disks, directory, writable=writable)

    def replacements(self, directory: Path) -> tuple[str, ...]:
        return overlays(directory)

    async def fold_back(self, directory: Path) -> None:
        await fold_back_at_rest(directory)

    async def attach(self, definition: VmDefinition, place: Place) -> QemuMachine | None:
        await _end_unrecorded(place)
        record = process.read_record(place.directory)
        if record is None or not process.is_alive(record):
            forget(place.directory)
            with contextlib.suppress(ToolError):  # its next start tries again, and says why not
                await fold_back_at_rest(place.directory)
            return None
        held = Process(record.pid)
        if not process.is_alive(record):  # it ended, and its pid was given away, just before we held it
            held.release()
            return None
        try:
            qmp = await Qmp.connect(place.qmp, ATTACH_DEADLINE_S, lambda: not held.is_gone)
        except ToolError:
            if held.is_gone:
                forget(place.directory)
                return None
            held.release()
            raise
        pinned = parse_definition(record.definition, str(place.directory / process.RECORD))
        with contextlib.suppress(ToolError):  # the next snapshot tries again, and says why not
            await graph.clear(qmp)
        with contextlib.suppress(ToolError):
            await fold_back(qmp, place.directory)
        with contextlib.suppress(ToolError):  # likewise
            await quiet(qmp)
        return QemuMachine(pinned, Ends(held, qmp, place.directory, self._guard, self._claims))

    async def adopt(self, qmp_socket: Path) -> QemuMachine:
        return await adopt(qmp_socket)

    async def _launched(self, pinned: VmDefinition, place: Place, *, incoming: bool) -> QemuMachine:
        """The process, paused and answering QMP, on record."""
        log = place.directory / process.LOG
        said_before = log.stat().st_size if log.exists() else 0
        watched = await self._spawned_whole(pinned, place, incoming=incoming)
        try:
            qmp = await Qmp.connect(place.qmp, START_DEADLINE_S, lambda: not watched.is_gone)
        except BaseException as error:
            await _ended(watched, place)
            if isinstance(error, ToolError):
                raise _not_started(pinned, place, said_before) from error
            raise
        return QemuMachine(pinned, Ends(watched, qmp, place.directory, self._guard, self._claims))

    async def _spawned_whole(self, pinned: VmDefinition, place: Place, *, incoming: bool) -> Process:
        """Paused, and on record. When it cannot be recorded, or we are cancelled in between, it is ended."""
        spawning = asyncio.ensure_future(asyncio.to_thread(self._spawned, pinned, place, incoming))
        try:
            spawned = await asyncio.shield(spawning)
        except asyncio.CancelledError:
            await _ended(Process((await spawning).pid), place)
            raise
        held = Process(spawned.pid)
        try:
            process.write_record(place.directory, _record(pinned, spawned, incoming=incoming))
        except BaseException:
            await _ended(held, place)
            raise
        return held

    def _spawned(self, pinned: VmDefinition, place: Place, incoming: bool) -> process.Spawned:
        """Blocking."""
        with network.taps(pinned.nics) as taps:
            launch = Launch(place.directory, place.vtpm_socket, taps, incoming)
            log = place.directory / process.LOG
            made = adopted_arguments if pinned.adopted else arguments
            return process.spawn(self._binary, made(pinned, launch), place.directory, log, taps)

    async def _qemu_facts(self) -> probing.QemuFacts:
        async with self._probing:
            return await probing.qemu_facts(self._binary, self._cache)

    async def _accelerator(self) -> Verdict:
        async with self._probing:
            return await working_accelerator(self._binary, self._cache, self._probe_kernel)


def _record(pinned: VmDefinition, spawned: process.Spawned, *, incoming: bool) -> ProcessRecord:
    return ProcessRecord(
        pid=spawned.pid,
        start_ticks=spawned.start_ticks,
        boot_id=process.boot_id(),
        definition=definition_text(pinned),
        incoming=incoming,
        may_have_run=False,
    )


async def _ended(held: Process, place: Place) -> None:
    await process.end(held)
    forget(place.directory)


def _refuse_what_cannot_start(definition: VmDefinition, *, incoming: bool) -> None:
    if definition.adopted:
        if incoming:
            refuse_foreign_hardware(definition)
            return
        raise UsageError(
            f"{definition.name} was adopted; Korora can move it, but not boot it",
            kind="adopted",
            remedy="start it with the tool that made it, then adopt it",
        )
    if definition.machine != "q35" and not definition.machine.startswith("pc-q35-"):
        raise UsageError(
            f"Korora starts q35 machines only, not {definition.machine}",
            kind="machine-type",
            remedy='set machine = "q35", or one of the pc-q35 versions that `korora host show` lists',
        )


def _refuse_escaping_images(definition: VmDefinition) -> None:
    if definition.adopted:
        refuse_escaping_images(images_of(definition.hardware))
    else:
        refuse_escaping_images(definition.disks)


async def _end_unrecorded(place: Place) -> None:
    """A QEMU that a daemon started and died before it could record: it was paused and never ran."""
    if process.read_record(place.directory) is not None or not place.qmp.exists():
        return
    with contextlib.suppress(ToolError):
        qmp = await Qmp.connect(place.qmp, UNRECORDED_DEADLINE_S, lambda: False)
        await process.end(Process(qmp.peer_pid))
        await qmp.close()


async def _refuse_second(definition: VmDefinition, place: Place) -> None:
    await _end_unrecorded(place)
    record = process.read_record(place.directory)
    if record is not None and process.is_alive(record):
        raise ToolError(
            f"{definition.name} is running already, as process {record.pid}",
            kind="already-running",
            remedy="stop it first: korora vm stop",
        )
    forget(place.directory)


def _lay_out_variables(definition: VmDefinition, place: Place, *, incoming: bool) -> None:
    """A UEFI guest's own variable store: made from the template once; a migration brings it along."""
    files = firmware_files(definition)
    own = place.directory / VARIABLES
    if files is None or own.exists():
        return
    if incoming:
        raise ToolError(
            f"the variable store of {definition.name} has not arrived",
            kind="no-variables",
            remedy="the migration brings it before the VM; try the migration again",
        )
    try:
        shutil.copyfile(files[1], own)
    except OSError as error:
        raise ToolError(
            f"the firmware's variable template {files[1]} cannot be copied: {error.strerror}",
            kind="no-firmware",
            remedy="install it (apt-get install ovmf) or name another as firmware.variables",
        ) from error
    own.chmod(0o600)


def _not_started(definition: VmDefinition, place: Place, said_before: int) -> ToolError:
    words = process.last_words(place.directory, said_before) or "it said nothing"
    return ToolError(
        f"QEMU does not start {definition.name}: {words}",
        kind="qemu-start",
        remedy=f"mend what it says; everything it said is in {place.directory / process.LOG}",
    )
