"""One live QEMU: its CPUs, its end, and, through `stream`, the moving of its state."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from korora.adapters.hypervisor import live_cpu, process, stream
from korora.adapters.hypervisor.command_line import ram_bytes
from korora.adapters.hypervisor.disks.folding import fold_back
from korora.adapters.hypervisor.disks.moving import QemuMovingDisks
from korora.adapters.hypervisor.disks.overlay import is_noted
from korora.adapters.hypervisor.disks.replacement import Claims
from korora.adapters.hypervisor.disks.unchanged import not_as_defined
from korora.adapters.hypervisor.memory import BackendFile
from korora.adapters.hypervisor.process import Process, ProcessRecord
from korora.adapters.hypervisor.qmp import Qmp
from korora.adapters.hypervisor.sampling.guard import Guard
from korora.adapters.hypervisor.sampling.sampler import TraceSampler
from korora.adapters.hypervisor.snapshot import graph, moment
from korora.adapters.hypervisor.snapshot.drives import drives_of
from korora.errors import KororaError, RefusedError, ToolError
from korora.model.image import NbdExport
from korora.model.vm import RunState, VmDefinition
from korora.ports.hypervisor import StreamSettings, StreamState, StreamStatus, did_not_stop, no_such_disk

QUIT_DEADLINE_S = 5.0
DYING_S = 0.5  # between the loss of QMP and the end of a dying process

_RUN_STATES = {
    "running": RunState.RUNNING,
    "suspended": RunState.RUNNING,  # the guest sleeps (ACPI S3): its own doing, and it may wake by itself
    "inmigrate": RunState.INCOMING,
    "postmigrate": RunState.MIGRATED,
}


@dataclass(frozen=True, slots=True)
class Ends:
    """The two ends by which a QEMU is held. `directory` is None for an adopted one: no file is ours."""

    process: Process
    qmp: Qmp
    directory: Path | None
    guard: Guard | None = None  # who ends a sample of its requests when the daemon is killed
    claims: Claims = field(default_factory=Claims)  # of room, by all VMs of this daemon


class QemuMachine:
    """A Machine (ports.hypervisor). Errors end with QEMU's last words when the process is gone."""

    def __init__(self, definition: VmDefinition, ends: Ends) -> None:
        self._definition = definition
        self._process = ends.process
        self._qmp = ends.qmp
        self._directory = ends.directory
        self._claims = ends.claims
        self._disks_are_shown = False
        self._memory = BackendFile.of(ends.process.pid, ram_bytes(definition))
        self._moving: QemuMovingDisks | None = None
        self._sampler: TraceSampler | None = None
        if ends.directory is not None:
            guarded = (ends.guard, ends.directory / "qmp.sock") if ends.guard is not None else None
            self._sampler = TraceSampler(ends.qmp, ends.process.pid, definition.disks, guarded=guarded)

    @property
    def definition(self) -> VmDefinition:
        """With machine type and accelerator as they were pinned at the start."""
        return self._definition

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def memory(self) -> BackendFile | None:
        return self._memory

    @property
    def sampler(self) -> TraceSampler | None:
        return self._sampler

    async def run_state(self) -> RunState:
        if self._process.is_gone:
            return RunState.STOPPED
        try:
            return await self._told_state()
        except ToolError:
            if await self._process.wait(DYING_S):
                return RunState.STOPPED
            raise

    async def pause(self) -> None:
        async with self._explained():
            await self._qmp.execute("stop")

    async def resume(self) -> None:
        """Run. An incoming VM is first recorded as one that may have run; on failure it stays paused."""
        before = self._record()
        self._record_run(before)
        try:
            async with self._explained():
                await self._qmp.execute("cont")
        except ToolError as error:
            if error.kind == "qmp-refused":  # QEMU's own word that it did not run
                self._rewrite(before)
            raise

    async def power_down(self, deadline_s: float) -> None:
        async with self._explained():
            await self._qmp.execute("system_powerdown")
        if not await self._process.wait(deadline_s):
            raise did_not_stop(self._definition.name, deadline_s)
        await self.quit()

    async def quit(self) -> None:
        """End the process now, by force if it does not answer. What says that it lives is removed too."""
        if not self._process.is_gone:
            with contextlib.suppress(ToolError):
                await self._qmp.execute("quit", deadline_s=QUIT_DEADLINE_S)
                await self._process.wait(QUIT_DEADLINE_S)
        await process.end(self._process)
        await self._let_go()
        if self._directory is not None:
            forget(self._directory)

    @contextlib.asynccontextmanager
    async def disks_at_one_moment(self, scratch: Path) -> AsyncIterator[dict[str, NbdExport]]:
        self._refuse_shown("they are being read already")
        if await self.run_state() in {RunState.INCOMING, RunState.MIGRATED}:
            raise RefusedError("the VM does not run here: its disks are another host's", kind="moving")
        self._disks_are_shown = True
        shown = moment.disks_at_one_moment(self._qmp, scratch, self._definition.disks)
        try:
            async with self._explained(), shown as exports:
                yield exports
        finally:
            self._disks_are_shown = False

    async def moving_disks(self, names: Sequence[str]) -> QemuMovingDisks:
        if self._directory is None:
            raise RefusedError(
                f"{self._definition.name} was adopted: its disks stay where they are",
                kind="disks-hidden",
                remedy="put them on storage that both hosts see, or define the VM for Korora",
            )
        async with self._explained():
            await self._make_whole()
            drives = {drive.name: drive for drive in await drives_of(self._qmp, self._definition.disks)}
        missing = [name for name in names if name not in drives]
        replaced = {disk.name for disk in self._definition.disks}.intersection(missing)
        if replaced:
            raise not_as_defined(self._definition.name, sorted(replaced))
        if missing:
            raise no_such_disk(self._definition.name, missing, list(drives))
        chosen, defined = [drives[name] for name in names], self._definition.disks
        moving = QemuMovingDisks(self._qmp, chosen, self._directory, disks=defined, claims=self._claims)
        if self._moving is None or not self._moving.outsources:
            self._moving = moving
        return moving

    async def cpu_features(self) -> dict[str, bool]:
        async with self._explained():
            recipe = self._cpu_recipe()
            if recipe is None:
                return await live_cpu.features(self._qmp)
            return await live_cpu.features_made_by(self._qmp, recipe)

    async def listen(self, socket: Path, settings: StreamSettings) -> None:
        async with self._explained():
            await stream.listen(self._qmp, self._name_of(socket), settings)

    async def send(self, socket: Path, settings: StreamSettings) -> None:
        self._refuse_shown("its state can be sent once they were read")
        async with self._explained():
            await graph.clear(self._qmp)  # with a filter under a disk QEMU's stream fails in the end
            await self._make_whole()
            await stream.send(self._qmp, socket, self._directory, settings)

    async def stream_status(self) -> StreamStatus:
        async with self._explained():
            return await stream.status(self._qmp)

    async def stream_states(self) -> AsyncIterator[StreamState]:
        """Ends after a final state. ToolError when the process ends first, as on a bad incoming stream."""
        async with self._explained():
            async for state in stream.states(self._qmp, self._process):
                yield state

    async def allow_downtime(self, limit_ms: int) -> None:
        async with self._explained():
            await stream.allow_downtime(self._qmp, limit_ms)

    async def switch_over(self) -> None:
        async with self._explained():
            await stream.switch_over(self._qmp)

    async def cancel_stream(self) -> None:
        async with self._explained():
            await stream.cancel(self._qmp)

    async def announce(self) -> None:
        rounds = {"initial": 50, "max": 550, "rounds": 5, "step": 100}
        async with self._explained():
            await self._qmp.execute("announce-self", rounds)

    async def close(self) -> None:
        await self._let_go()
        self._process.release()

    async def _let_go(self) -> None:
        if self._sampler is not None:
            await self._sampler.close()
        await self._qmp.close()

    async def _make_whole(self) -> None:
        """What an earlier move could not fold back is tried again: else a disk would move without it."""
        ours = self._moving is not None and self._moving.outsources
        if self._directory is not None and not ours and is_noted(self._directory):
            await fold_back(self._qmp, self._directory)

    def _refuse_shown(self, words: str) -> None:
        if self._disks_are_shown:
            raise RefusedError(
                f"the disks of {self._definition.name} are shown as they were at one moment: {words}",
                kind="disks-shown",
                remedy="wait until the inspection has ended",
            )

    async def _told_state(self) -> RunState:
        status = (await self._qmp.execute("query-status"))["status"]
        if status == "postmigrate" and not await stream.has_completed(self._qmp):
            return RunState.PAUSED  # it was paused when a stream began, and that stream came to nothing
        state = _RUN_STATES.get(status, RunState.PAUSED)
        if state is RunState.PAUSED and self._has_never_run():
            return RunState.INCOMING
        return state

    def _cpu_recipe(self) -> str | None:
        """None for an adopted QEMU: its command line may say more of the CPU than the definition does."""
        made = self._definition
        try:
            binary = os.stat(f"/proc/{self.pid}/exe")  # noqa: PTH116  of the process, not of a path
        except OSError:
            return None
        if self._directory is None or made.adopted:
            return None
        program = f"{binary.st_dev}:{binary.st_ino}:{binary.st_mtime_ns}"
        return f"{program} {made.machine} {made.accelerator} {made.cpus} {made.cpu_model}"

    def _name_of(self, socket: Path) -> str:
        return stream.address(socket, self._directory)

    def _has_never_run(self) -> bool:
        record = self._record()
        return record is not None and record.incoming and not record.may_have_run

    def _record_run(self, record: ProcessRecord | None) -> None:
        """Before the first `cont`: should the daemon die in between, doubt must fall on "it may have run"."""
        if record is not None and not record.may_have_run:
            self._rewrite(msgspec.structs.replace(record, may_have_run=True))

    def _rewrite(self, record: ProcessRecord | None) -> None:
        if self._directory is not None and record is not None:
            process.write_record(self._directory, record)

    def _record(self) -> ProcessRecord | None:
        return None if self._directory is None else process.read_record(self._directory)

    @contextlib.asynccontextmanager
    async def _explained(self) -> AsyncIterator[None]:
        """Turn "connection lost" into what QEMU said before it ended."""
        try:
            yield
        except ToolError as error:
            if error.kind in {"qmp-gone", "qmp-silent", "vm-process-gone"} and await self._process.wait(
                DYING_S
            ):
                raise gone(self._definition.name, self._directory) from error
            raise


def forget(directory: Path) -> None:
    """Remove what says that a process lives here. Logs, records of the guest and its variable store stay."""
    for name in ("qmp.sock", process.RECORD, process.RECORD + ".new"):
        (directory / name).unlink(missing_ok=True)


def gone(name: str, directory: Path | None) -> KororaError:
    words = process.last_words(directory) if directory is not None else ""
    said = f": {words}" if words else ""
    return ToolError(
        f"the QEMU of {name} has ended{said}",
        kind="vm-process-gone",
        remedy="see qemu.log of this VM for the reason",
    )
