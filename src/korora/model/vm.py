"""What a VM is: the definition an administrator writes, and what a running one is found to be."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from korora.model.identity import VmName


class Firmware(StrEnum):
    BIOS = "bios"
    UEFI = "uefi"


class RunState(StrEnum):
    """What the hypervisor says of the VM's CPUs."""

    RUNNING = "running"
    PAUSED = "paused"
    INCOMING = "incoming"  # waits for its state, or holds it and has not run yet
    MIGRATED = "migrated"  # QEMU's postmigrate: its state was sent away
    STOPPED = "stopped"  # no process


@dataclass(frozen=True, slots=True)
class Backing:
    """An image that lies beneath a disk, and is only read."""

    path: str
    format: str


@dataclass(frozen=True, slots=True)
class Disk:
    """`backing`: the images beneath it, from the nearest to the last; what their own headers name must be
    the same."""

    path: str
    format: str = "raw"
    name: str = "disk0"
    backing: tuple[Backing, ...] = ()

    @property
    def beneath(self) -> tuple[str, ...]:
        """The paths of what it lies over."""
        return tuple(one.path for one in self.backing)


@dataclass(frozen=True, slots=True)
class Nic:
    bridge: str
    mac: str


@dataclass(frozen=True, slots=True)
class Boot:
    """Direct kernel boot; all None boots from the disk."""

    kernel: str | None = None
    initrd: str | None = None
    command_line: str = ""


@dataclass(frozen=True, slots=True)
class VmDefinition:
    """One VM, as written in TOML. `memory_bytes` is guest RAM; paths are absolute, the same on every host."""

    name: VmName
    uuid: str
    memory_bytes: int
    cpus: int = 1
    cpu_model: str = "qemu64"
    machine: str = "q35"
    accelerator: str = "auto"  # auto | kvm | tcg
    firmware: Firmware = Firmware.BIOS
    secure_boot: bool = False
    firmware_code: str | None = None
    firmware_variables: str | None = None  # template for a fresh variable store
    boot: Boot = field(default_factory=Boot)
    vtpm: bool = True
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    adopted: bool = False  # started by somebody else; Korora only speaks QMP to it
    hardware: tuple[str, ...] = ()  # of an adopted VM: the arguments that make the same hardware elsewhere
    immovable: str = ""  # of an adopted VM without `hardware`: why it cannot be made elsewhere


@dataclass(frozen=True, slots=True)
class HypervisorFacts:
    """What a host's hypervisor can do; the source's are compared with the destination's (S1)."""

    name: str  # "qemu"
    version: str
    machines: tuple[str, ...]
    cpu_models: tuple[str, ...]
    accelerator: str  # the one that was seen to work: "kvm" or "tcg"
    accelerator_note: str
    capabilities: tuple[str, ...]  # migration capabilities
    swtpm_version: str
    firmware: tuple[str, ...]  # readable firmware images, by path
