"""What is left of a VM that left: destroyed, step by step, with a certificate that admits its limits (S7)."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from korora.errors import RefusedError, ToolError
from korora.migration.crossing.disks.keeping import Keeping, kept
from korora.migration.crossing.disks.storage import moving
from korora.migration.crossing.subject import Subject
from korora.migration.setting import Setting
from korora.model.evidence import WipeCertificate, WipeStep
from korora.model.vm import VmDefinition
from korora.ports.hypervisor import Machine
from korora.ports.vtpm import Vtpm
from korora.protocol.receipt.document import Limit

log = structlog.get_logger("korora.migration")
MEMORY_LIMITS: Final = (
    "not overwritten: copies of guest data inside QEMU's own heap, its translated code, ROM and ACPI blocks,"
    " which ended with its process",
    "not reached: what the kernel or the machine's firmware may have kept of the freed pages, and swap, if"
    " the host has any",
)
DISKS: Final = "disks on shared storage are the destination's now and were not touched"
NO_MEMORY: Final = (
    "guest memory could not be reached from outside QEMU: it ended with its process, unverified"
)
NO_CUSTODY: Final = "the vTPM was not in Korora's custody on the source: its remains there were not wiped"


async def wipe_source(
    at: Setting, vm: Subject, disks: Sequence[str] = (), keeping: Keeping | None = None
) -> WipeCertificate:
    """vTPM shut down, memory overwritten and verified, QEMU ended; vTPM state, key and files destroyed, and
    those disks that moved (as a request names them), unless they are kept for the VM's return.

    Repeatable after a crash.
    """
    steps: list[WipeStep] = []
    moved = moving(vm.definition, disks)
    limits = [DISKS] if len(moved) < len(vm.definition.disks) or not moved else []
    if vm.definition.adopted:
        limits = [_adopted(at, vm.definition)]
    if vm.live is not None:
        await at.guests.release(vm.definition.name)
        steps += await retire(vm.live.machine, vm.live.vtpm)
        limits += [*MEMORY_LIMITS, *([] if vm.live.machine.memory is not None else [NO_MEMORY])]
    if vm.definition.vtpm and not vm.vtpm_in_custody:
        limits.append(NO_CUSTODY)
    steps += await wipe_remains(at, vm.definition, disks, keeping)
    if keeping is not None and {disk.path for disk in moved} - {step.what for step in steps}:
        limits.append(Limit.DISKS_KEPT)
    if any(disk.backing for disk in moved):
        limits.append(Limit.BACKING_STAYS)
    return WipeCertificate(tuple(steps), tuple(limits))


async def retire(machine: Machine, vtpm: Vtpm | None) -> list[WipeStep]:
    """The vTPM is shut down, guest memory overwritten and verified, QEMU ended."""
    if vtpm is not None:
        await vtpm.retire()
    steps = []
    if machine.memory is not None:
        steps.append(await asyncio.to_thread(machine.memory.wipe))
    await machine.quit()
    return steps


async def wipe_remains(
    at: Setting, definition: VmDefinition, disks: Sequence[str] = (), keeping: Keeping | None = None
) -> list[WipeStep]:
    """What lies in the VM's directory here, and the disks that moved and are not kept; also after a crash,
    when its processes are gone."""
    directory = at.guests.directory(definition.name)
    moved = moving(definition, disks)
    if keeping is not None:
        try:
            if at.hypervisor.replacements(directory):
                await at.hypervisor.fold_back(directory)
        except ToolError as error:
            log.warning("disks are not kept", vm=definition.name, reason=error.message)
            keeping = None
    steps = [
        await _wiped(at, disk.path)
        for disk in moved
        if keeping is None or not await kept(at, definition.uuid, disk, keeping)
    ]
    steps += await _wiped_replacements(at, directory)
    if definition.vtpm and not definition.adopted:
        steps.append(await at.vtpms.wipe(definition.name, directory))
    await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
    return steps


def _adopted(at: Setting, vm: VmDefinition) -> str:
    paths = {disk.path for disk in vm.disks}
    with suppress(RefusedError):
        paths.update(at.hypervisor.files(vm).written)
    return f"{Limit.ADOPTED_DISKS}: {', '.join(sorted(paths)) or 'none'}"


async def _wiped_replacements(at: Setting, directory: Path) -> list[WipeStep]:
    try:
        return [await _wiped(at, path) for path in at.hypervisor.replacements(directory)]
    except ToolError as error:
        log.warning("what a VM wrote elsewhere is not wiped", reason=error.message)
        note = f"not wiped: {error.message}"
        return [WipeStep("what the VM wrote while its disks moved", "none", 0, verified=False, note=note)]


async def _wiped(at: Setting, path: str) -> WipeStep:
    """The VM runs there: a disk that cannot be wiped here is told, and holds up nothing."""
    try:
        return await at.premises.wipe_file(path)
    except OSError as error:
        note = f"not wiped: {error.strerror or error}; it is still there"
        return WipeStep(path, "none", 0, verified=False, note=note)
