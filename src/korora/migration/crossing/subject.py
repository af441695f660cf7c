"""The VM that moves: as it lives on the source, or as it rests there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from korora.errors import RefusedError
from korora.migration.papers.file import MigrationFile
from korora.migration.setting import Setting
from korora.model.definition import parse_definition
from korora.model.identity import VmName
from korora.model.ownership import Status
from korora.model.plan import Mode
from korora.model.vm import VmDefinition
from korora.ports.hypervisor import Machine
from korora.protocol.receipt.document import Limit
from korora.supervision.live import LiveVm


@dataclass(frozen=True, slots=True)
class Subject:
    """`live` is None for a stopped VM. `definition` has machine type and accelerator as they were pinned."""

    definition: VmDefinition
    directory: Path
    live: LiveVm | None

    @property
    def machine(self) -> Machine | None:
        return self.live.machine if self.live is not None else None

    @property
    def vtpm_in_custody(self) -> bool:
        """Whether Korora moves its vTPM under a key of its own; an adopted VM's rides in the stream."""
        return self.live.vtpm is not None if self.live is not None else self.definition.vtpm


def limits_of(vm: Subject, file: MigrationFile) -> list[str]:
    """What the receipt of this move must admit."""
    limits: list[str] = []
    if file.clean_memory is None:
        limits.append(Limit.NO_MEMORY if vm.live is None else Limit.MEMORY_NOT_PROVED)
    if file.inspection is None:
        limits.append(Limit.NOT_INSPECTED)
    if file.wiped is not None:
        limits += [one for one in (Limit.DISKS_KEPT, Limit.BACKING_STAYS) if one in file.wiped.limits]
    if file.wiped is not None and vm.definition.adopted:
        limits += [limit for limit in file.wiped.limits if limit.startswith(Limit.ADOPTED_DISKS)]
    if not vm.vtpm_in_custody:
        limits.append(Limit.VTPM_IN_STREAM if vm.definition.vtpm else Limit.NO_VTPM)
    return limits


def find_subject(at: Setting, name: VmName, mode: Mode) -> Subject:
    """UsageError unknown-vm; RefusedError not-owner, or not-running with a remedy when it is stopped."""
    try:
        live = at.guests.live(name)
    except RefusedError as refused:
        record = at.journal.vm(name)
        if refused.kind != "not-running" or record is None or record.ownership != Status.OWNER:
            raise
        definition = parse_definition(record.definition)
        if definition.adopted:  # Korora starts none, and one whose socket is silent may run after all
            raise
        if mode is Mode.OFFLINE:
            return Subject(definition, at.guests.directory(name), None)
        raise RefusedError(
            refused.message,
            kind=refused.kind,
            remedy=f"{refused.remedy}, or move it as it is: korora migrate {name} --mode offline --to HOST",
        ) from refused
    # As it was pinned when it started; an adopted one under the name it was adopted by.
    pinned = replace(live.machine.definition, name=name, adopted=live.definition.adopted)
    return Subject(pinned, live.place.directory, live)
