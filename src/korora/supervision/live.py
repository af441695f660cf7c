"""One VM: its running parts, how they are found again after a restart, and the picture shown of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from korora.errors import KororaError
from korora.model.definition import parse_definition
from korora.model.vm import RunState, VmDefinition
from korora.ports.hypervisor import Hypervisor, Machine, Place
from korora.ports.journal import VmRecord
from korora.ports.vtpm import Vtpm, VtpmAgent
from korora.supervision.boots.record import BootVerdict, read_verdict
from korora.supervision.life import LifeNote, read_life
from korora.supervision.refusals import may_run


@dataclass(frozen=True, slots=True, eq=False)
class LiveVm:
    """A VM whose process runs on this host. `definition` is the journal's, also of an adopted one."""

    definition: VmDefinition
    machine: Machine
    vtpm: Vtpm | None  # None as well when its process was lost: see `vtpm_lost`
    place: Place

    @property
    def vtpm_lost(self) -> bool:
        return self.definition.vtpm and not self.definition.adopted and self.vtpm is None


@dataclass(frozen=True, slots=True)
class VmStatus:
    """One VM as `vm show` tells it.

    `not_in_disks`: files that hold what it wrote, and its disks do not, though it does not move;
    `disks_trouble`: why that cannot be said.
    """

    record: VmRecord
    definition: VmDefinition | None  # None when the journal's text is not understood any more
    state: RunState | None  # None when its process is there but does not answer
    pid: int | None
    moving: bool
    owned: bool
    vtpm_lost: bool
    life: LifeNote | None
    boot: BootVerdict | None
    not_in_disks: tuple[str, ...] = ()
    disks_trouble: KororaError | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What an earlier daemon left running. A vTPM without a machine is a remainder to end."""

    definition: VmDefinition
    live: LiveVm | None
    vtpm: Vtpm | None


async def find_again(
    record: VmRecord, directory: Path, hypervisor: Hypervisor, vtpm_agent: VtpmAgent
) -> Found:
    """Attach to what runs of this VM; start nothing. KororaError when it cannot be told."""
    definition = parse_definition(record.definition, f"the journal's definition of {record.name}")
    if record.qmp_socket is not None:
        machine, vtpm = await _adopt_again(record.qmp_socket, hypervisor), None
        place = Place(directory, None)
    else:
        vtpm = await vtpm_agent.attach(record.name, directory) if definition.vtpm else None
        place = Place(directory, vtpm.socket if vtpm else None)
        machine = await hypervisor.attach(definition, place)
    live = LiveVm(definition, machine, vtpm, place) if machine is not None else None
    return Found(definition, live, vtpm)


async def picture(record: VmRecord, live: LiveVm | None, directory: Path) -> VmStatus:
    """What the VM itself and its directory tell."""
    return VmStatus(
        record=record,
        definition=live.definition if live else _definition_of(record),
        state=await _state_of(live),
        pid=live.machine.pid if live else None,
        moving=False,
        owned=may_run(record),
        vtpm_lost=live.vtpm_lost if live else False,
        life=read_life(directory),
        boot=read_verdict(directory),
    )


async def _adopt_again(known_socket: str, hypervisor: Hypervisor) -> Machine | None:
    """A VM that was adopted here has only its socket; one that does not answer counts as ended."""
    try:
        return await hypervisor.adopt(Path(known_socket))
    except KororaError:
        return None


async def _state_of(live: LiveVm | None) -> RunState | None:
    if live is None:
        return RunState.STOPPED
    try:
        return await live.machine.run_state()
    except KororaError:
        return None


def _definition_of(record: VmRecord) -> VmDefinition | None:
    try:
        return parse_definition(record.definition)
    except KororaError:
        return None
