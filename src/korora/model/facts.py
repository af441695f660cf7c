"""What each host says of itself before a move, as plain values that travel in a message (S1)."""

from __future__ import annotations

from dataclasses import dataclass, field

from korora.model.identity import HostName
from korora.model.vm import HypervisorFacts

FeatureSet = dict[str, bool]  # CPU feature → whether the guest sees it
FileDigests = dict[str, str]  # path → digest; a file that is not there is not in it
DiskSizes = dict[str, int]  # path → guest-visible container size in bytes; likewise


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """The source and the VM on it. `cpu_features` are the running VM's; empty for a stopped one."""

    host: HostName
    hypervisor: HypervisorFacts
    cpu_features: FeatureSet = field(default_factory=dict)
    files: FileDigests = field(default_factory=dict)
    disks: DiskSizes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DestinationFacts:
    """The destination. `cpu_features`: what the VM's CPU model becomes there; `cpu_problem`: why it cannot.

    `vms` are the names in use there; `incoming` counts the moves that arrive now, this one not included.
    """

    host: HostName
    hypervisor: HypervisorFacts
    memory_available_bytes: int
    tpm_present: bool
    cpu_features: FeatureSet = field(default_factory=dict)
    cpu_problem: str = ""
    files: FileDigests = field(default_factory=dict)
    disks: DiskSizes = field(default_factory=dict)
    outside: tuple[str, ...] = ()  # files of the VM that may not be had there, and were not looked at
    storage_available_bytes: int = 0  # where disks come that move with their VM
    bridges: tuple[str, ...] = ()
    vms: tuple[str, ...] = ()
    incoming: int = 0
    incoming_limit: int = 1
