"""What each host says of itself and of the VM before a move (S1), gathered from ports and the file system."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from korora.errors import KororaError
from korora.migration.setting import Setting
from korora.model.definition import definition_text
from korora.model.facts import DestinationFacts, SourceFacts
from korora.model.identity import Digest, sha256
from korora.model.ownership import Status
from korora.model.vm import Firmware, VmDefinition
from korora.policy.precheck import boot_files
from korora.ports.hypervisor import Machine

VARIABLES: Final = "variables"
_VARIABLES_FILE: Final = "variables.fd"
_GONE: Final = frozenset({Status.ABSENT, Status.WIPED})


async def source_facts(at: Setting, definition: VmDefinition, machine: Machine | None) -> SourceFacts:
    """The source, and what the running guest sees of its CPU."""
    return SourceFacts(
        host=at.host,
        hypervisor=await at.hypervisor.facts(),
        cpu_features=await machine.cpu_features() if machine is not None else {},
        files=await at.premises.file_digests(boot_files(definition)),
        disks=await at.premises.disk_sizes([*_disks(definition), *_beneath(definition)]),
    )


async def destination_facts(
    at: Setting, definition: VmDefinition, beneath: Sequence[str], promised: Callable[[], tuple[int, int]]
) -> DestinationFacts:
    """This host as a destination. `beneath`: images over which disks are to come. `promised`: how many others
    arrive, and the bytes that they still take.

    Another host named the files: what is outside of this host's storage is not even looked at.
    """
    boot, disks = boot_files(definition), _disks(definition)
    beneath = (*_beneath(definition), *beneath)
    hardware = at.hypervisor.files(definition)
    read = (*boot, *beneath, *filter(None, [definition.firmware_variables]), *hardware.read)
    outside = await at.premises.outside(read, (*disks, *hardware.written))
    features, problem = {}, ""
    try:
        features = await at.hypervisor.cpu_features(definition)
    except KororaError as error:
        problem = error.message
    facts = DestinationFacts(
        host=at.host,
        hypervisor=await at.hypervisor.facts(),
        memory_available_bytes=0,
        tpm_present=await at.attester.available(),
        cpu_features=features,
        cpu_problem=problem,
        files=await at.premises.file_digests([p for p in boot if p not in outside]),
        disks=await at.premises.disk_sizes([p for p in (*disks, *beneath) if p not in outside]),
        outside=outside,
        storage_available_bytes=await at.premises.room(str(at.guests.place(definition.name))),
        bridges=at.premises.bridges(),
        vms=tuple(record.name for record in at.journal.vms() if Status(record.ownership) not in _GONE),
        incoming_limit=at.incoming_limit,
    )
    # Last, and at one moment: what is promised to others may become what they have at any other.
    incoming, owed_bytes = promised()
    free_bytes = max(0, at.premises.memory_available_bytes() - owed_bytes)
    return replace(facts, incoming=incoming, memory_available_bytes=free_bytes)


def _disks(definition: VmDefinition) -> list[str]:
    return [disk.path for disk in definition.disks]


def _beneath(definition: VmDefinition) -> list[str]:
    return [path for disk in definition.disks for path in disk.beneath]


def variables(directory: Path, definition: VmDefinition) -> bytes | None:
    """The UEFI variable store as it is in the file now; None for a VM without one."""
    store = directory / _VARIABLES_FILE
    if definition.firmware is not Firmware.UEFI or not store.is_file():
        return None
    return store.read_bytes()


def lay_variables(directory: Path, definition: VmDefinition, store: bytes | None) -> None:
    """Put the store where the incoming VM opens it. What the guest last wrote comes with its state."""
    if store is not None and definition.firmware is Firmware.UEFI:
        (directory / _VARIABLES_FILE).write_bytes(store)


def file_digests(
    directory: Path, definition: VmDefinition, boots: bytes | None, dossier: Digest | None
) -> dict[str, Digest]:
    """What goes beside the stream: definition, boot record, the variable store as it is in the file, and the
    dossier as it was sent."""
    beside = {
        "definition": definition_text(definition).encode(),
        "boots": boots,
        VARIABLES: variables(directory, definition),
    }
    digests = {name: sha256(data) for name, data in beside.items() if data is not None}
    return digests | ({"dossier": dossier} if dossier is not None else {})
