"""QEMU's arguments for one VM. Pure: the same definition gives the same guest-visible hardware on every host.

The order of the `-device` arguments fixes their PCI slots, so it is part of the migration format: append,
never insert. Everything that a definition may contain is matched against a closed set or written as JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from korora.errors import UsageError
from korora.model.vm import Backing, Disk, Firmware, VmDefinition

EVENT_LOG_PORT = "org.korora.eventlog.0"
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
SOCKET_PATH_MAX = 107  # sun_path less its NUL
OVMF = {
    False: ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    True: ("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"),
}
TCG_SHORT_BYTES: Final = 8192  # QEMU wants RAM in steps of 8 KiB
Q35_LOW_RAM_BYTES: Final = 0xB0000000  # a larger guest has RAM above 4 GiB anyway


@dataclass(frozen=True, slots=True)
class Launch:
    """What one start adds to the definition. QEMU runs in `directory`; `taps` are inherited descriptors."""

    directory: Path
    vtpm_socket: Path | None
    taps: tuple[int, ...] = ()
    incoming: bool = False


def arguments(definition: VmDefinition, launch: Launch) -> list[str]:
    """All arguments after the program's name. `machine` and `accelerator` are pinned (no alias, no auto)."""
    return [
        *_frame(definition, launch),
        *_firmware(definition),
        *_boot(definition),
        *_records(launch),
        *_vtpm(definition, launch),
        *_disks(definition.disks),
        *_nics(definition, launch.taps),
        *(["-incoming", "defer"] if launch.incoming else []),
    ]


def ram_bytes(definition: VmDefinition) -> int:
    """The size of guest RAM as QEMU is told. Under TCG it is two pages short of what the definition says.

    QEMU before 9.0 clears the dirty bits of RAM that is a whole number of 64 pages without telling TCG's TLB
    (physmem: cpu_physical_memory_sync_dirty_bitmap): later stores go unnoticed, and about one live migration
    in ten delivers a guest with stale pages, which panics. RAM of any other size is looked at page by page.
    """
    return definition.memory_bytes - (TCG_SHORT_BYTES if _short(definition) else 0)


def firmware_files(definition: VmDefinition) -> tuple[str, str] | None:
    """The UEFI code image and the template of its variable store; None for a BIOS guest."""
    if definition.firmware is Firmware.BIOS:
        return None
    code, variables = OVMF[definition.secure_boot]
    return definition.firmware_code or code, definition.firmware_variables or variables


def socket_path(path: Path, directory: Path | None) -> str:
    """`path` as a process in `directory` (None: anywhere) can name it within sun_path's 107 bytes."""
    names = [str(path)] if directory is None else [str(path), os.path.relpath(path, directory)]
    shortest = min(names, key=lambda name: len(os.fsencode(name)))
    return checked_socket_name(shortest, path)


def checked_socket_name(name: str, path: Path) -> str:
    """A name for the socket at `path`. UsageError(kind="socket-path") when sun_path cannot hold it."""
    if len(os.fsencode(name)) > SOCKET_PATH_MAX:
        raise UsageError(
            f"the socket path {path} is longer than {SOCKET_PATH_MAX} bytes",
            kind="socket-path",
            remedy="choose a shorter state directory in hostd.toml",
        )
    return name


def qmp_monitor(name: str) -> Iterator[str]:
    """A monitor on `qmp.sock`, and QEMU waits until somebody connects to it.

    A socket that does not wait is handed from the main loop to the monitor's thread while it listens. Both
    accept a client that comes meanwhile: it is greeted twice, or the main loop hangs in accept4 (QEMU 7.2;
    one start in some thousands on a busy host).
    """
    yield from ("-chardev", f"socket,id={name},path=qmp.sock,server=on,wait=on")
    yield from ("-mon", f"chardev={name},mode=control")


def escaped(text: str) -> str:
    """A value inside QEMU's comma-separated options."""
    return text.replace(",", ",,")


def _frame(definition: VmDefinition, launch: Launch) -> Iterator[str]:
    memory = ram_bytes(definition)
    yield from ("-name", f"guest={definition.name},debug-threads=on")
    yield from ("-uuid", definition.uuid)
    yield from ("-nodefaults", "-no-user-config", "-display", "none", "-S")
    yield from ("-sandbox", SANDBOX)
    yield from ("-object", f"memory-backend-memfd,id=mem,size={memory},share=on")
    yield from ("-machine", _machine(definition))
    yield from ("-accel", definition.accelerator)
    yield from ("-cpu", definition.cpu_model)
    yield from ("-m", f"{memory // 2**10}K")
    yield from ("-smp", str(definition.cpus))
    yield from qmp_monitor("qmp")
    # Disks, taps and sockets are relative to, or opened from, the place; QEMU's own files stay inside it.
    yield from ("-pidfile", str(launch.directory / "qemu.pid"))


def _machine(definition: VmDefinition) -> str:
    smm = ",smm=on" if definition.secure_boot else ""
    return f"{definition.machine},memory-backend=mem{smm}{low_ram(definition)}"


def low_ram(definition: VmDefinition) -> str:
    """Words for -machine: OVMF wants whole MiB below 4 GiB (SMRAM ends there), so the rest lies above."""
    low = definition.memory_bytes - 2**20
    needed = _short(definition) and definition.firmware is Firmware.UEFI and low < Q35_LOW_RAM_BYTES
    return f",max-ram-below-4g={low}" if needed else ""


def _short(definition: VmDefinition) -> bool:
    return definition.accelerator == "tcg" and not definition.adopted


def _firmware(definition: VmDefinition) -> Iterator[str]:
    files = firmware_files(definition)
    if files is None:
        return
    if definition.secure_boot:
        # Only code in SMM may write the variable store; S3 resume would bypass that.
        yield from ("-global", "driver=cfi.pflash01,property=secure,value=on")
        yield from ("-global", "ICH9-LPC.disable_s3=1")
    yield from ("-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={escaped(files[0])}")
    yield from ("-drive", "if=pflash,format=raw,unit=1,file=variables.fd")


def _boot(definition: VmDefinition) -> Iterator[str]:
    boot = definition.boot
    if boot.kernel is None:
        return
    yield from ("-kernel", boot.kernel)
    if boot.initrd is not None:
        yield from ("-initrd", boot.initrd)
    if boot.command_line:
        yield from ("-append", boot.command_line)


def _records(launch: Launch) -> Iterator[str]:
    """Console and boot event log, files in the place. A boot starts a new event log; a move goes on."""
    append = "on" if launch.incoming else "off"
    yield from ("-chardev", "file,id=console,path=console.log,append=on")
    yield from ("-serial", "chardev:console")
    yield from ("-device", "virtio-serial-pci,id=ports")
    yield from ("-chardev", f"file,id=eventlog,path=eventlog,append={append}")
    yield from ("-device", f"virtserialport,bus=ports.0,chardev=eventlog,name={EVENT_LOG_PORT}")
    yield from ("-object", "rng-random,id=rng,filename=/dev/urandom")
    yield from ("-device", "virtio-rng-pci,rng=rng,id=rng0")


def _vtpm(definition: VmDefinition, launch: Launch) -> Iterator[str]:
    if not definition.vtpm:
        return
    if launch.vtpm_socket is None:
        raise UsageError(
            f"{definition.name} has a vTPM, but no vTPM socket was given",
            kind="no-vtpm",
            remedy="start its vTPM first, or set vtpm.enabled = false",
        )
    path = escaped(socket_path(launch.vtpm_socket, launch.directory))
    yield from ("-chardev", f"socket,id=vtpm,path={path}")
    yield from ("-tpmdev", "emulator,id=tpm0,chardev=vtpm")
    yield from ("-device", "tpm-crb,tpmdev=tpm0")


def _disks(disks: Sequence[Disk]) -> Iterator[str]:
    for index, disk in enumerate(disks, start=1):  # boot index 0 is the direct kernel's
        yield from ("-blockdev", json.dumps(block_device(disk)))
        yield from ("-device", f"virtio-blk-pci,id={disk.name},drive={disk.name}-node,bootindex={index}")


def block_device(disk: Disk) -> dict[str, object]:
    """The block graph of one disk. The format is always said, and what lies beneath it: a qcow2 image can
    name no other file.

    `locking` is QEMU's fence: an incoming VM opens the same file inactive, without the lock, until it runs.
    """
    graph = image_graph(disk.path, disk.format, disk.backing)
    return graph | {"node-name": f"{disk.name}-node", "discard": "unmap"}


def image_graph(path: str, form: str, backing: Sequence[Backing]) -> dict[str, object]:
    """An image as QEMU is told of it, with all that lies beneath it, which is only read."""
    graph: dict[str, object] = {
        "driver": form,
        "file": {"driver": "file", "filename": path, "locking": "on"},
    }
    if form == "qcow2":
        graph["backing"] = None
    if backing:
        nearest, *others = backing
        graph["backing"] = image_graph(nearest.path, nearest.format, others) | {"read-only": True}
    return graph


def _nics(definition: VmDefinition, taps: Sequence[int]) -> Iterator[str]:
    for index, (nic, tap) in enumerate(zip(definition.nics, taps, strict=True)):
        yield from ("-netdev", f"tap,id=net{index},fd={tap},vhost=off")
        # Without its boot ROM, whose size would be part of the migration format.
        yield from ("-device", f"virtio-net-pci,id=nic{index},netdev=net{index},mac={nic.mac},romfile=")
