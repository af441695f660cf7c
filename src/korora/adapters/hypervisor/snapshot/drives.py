"""Which disks a running VM has: the guest's, each with a name of its own, and whether they can be shown.

Limit: no firmware flash, no CD-ROM or other removable medium, nothing that no device of the guest uses.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from korora.adapters.hypervisor.qmp import Qmp
from korora.adapters.hypervisor.snapshot.graph import path_of
from korora.errors import RefusedError
from korora.model.vm import Disk

OVERLAY: Final = "korora-over-"
"""Begins the name of a node that a guest of Korora's writes to while its disk moves; it is that disk."""
_FLASH: Final = {"cfi.pflash01", "cfi.pflash02"}
_PASSED_THROUGH: Final = {"scsi-block", "scsi-generic"}
_THREADS_SINCE: Final = 9
"""QEMU's first release whose NBD server is sound in an I/O thread. Before it (seen with 7.2.22) an assertion
in `nbd_blockdev_client_closed` ends QEMU, and the VM with it, when a reader hangs up."""
_MIGRATING: Final = {"inmigrate", "finish-migrate"}
_STANDS_STILL: Final = {"none", "completed", "failed", "cancelled"}


@dataclass(frozen=True, slots=True)
class Drive:
    """`device`: its path in QEMU's object tree; `node`: what it writes to; `size` in bytes; `file`: as QEMU
    names it."""

    name: str
    device: str
    node: str
    size: int
    file: str


async def drives_of(qmp: Qmp, disks: Iterable[Disk]) -> list[Drive]:
    """As `named_drives`. RefusedError(kind="disks-hidden") for a VM whose disks cannot be shown."""
    found = await named_drives(qmp, disks)
    if found:
        await _refuse_threads(qmp)
    return found


async def named_drives(qmp: Qmp, disks: Iterable[Disk]) -> list[Drive]:
    """Named as in the definition, or else by their devices. RefusedError(kind="disks-hidden") for one that is
    passed through."""
    names: dict[str | tuple[str, str], str] = {}
    for disk in disks:
        names[disk.path] = names[_own(disk.name)] = disk.name
    found: list[Drive] = []
    for block in await qmp.execute("query-block"):
        if not block.get("qdev") or not block.get("inserted") or block.get("removable"):
            continue
        device = path_of(str(block["qdev"]))
        kind = await qmp.execute("qom-get", {"path": device, "property": "type"})
        if kind in _FLASH:
            continue
        if kind in _PASSED_THROUGH:
            raise _refused(f"it has a disk of the host passed through ({kind}), past QEMU's block layer")
        found.append(_drive(block, device, names, {drive.name for drive in found}))
    return found


async def refuse_moving(qmp: Qmp) -> None:
    """RefusedError(kind="moving") while its state is sent or received."""
    stream = (await qmp.execute("query-migrate")).get("status", "none")
    status = (await qmp.execute("query-status"))["status"]
    # QEMU says that the stream is complete a moment before it says that it is the VM's end here.
    left = stream == "completed" and status == "postmigrate"
    if left or stream not in _STANDS_STILL or status in _MIGRATING:
        raise RefusedError(
            "the VM's state is just being moved: its disks cannot be looked at meanwhile",
            kind="moving",
            remedy="wait for the migration's outcome",
        )


def write_back(drives: Iterable[Drive]) -> None:
    """What the host holds back of them, as far as it can be reached: else the VM stands still for that long.

    Blocking. Opens nothing but files and block devices: who opens another device may set something off.
    """
    for drive in drives:
        with suppress(OSError, ValueError):
            held = os.open(drive.file, os.O_PATH | os.O_CLOEXEC)
            try:
                mode = os.fstat(held).st_mode
                if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
                    _synced(held)
            finally:
                os.close(held)


def _synced(held: int) -> None:
    opened = os.open(f"/proc/self/fd/{held}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _own(name: str) -> tuple[str, str]:
    """How Korora's own command line calls that disk: device and node."""
    return f"/machine/peripheral/{name}/virtio-backend", f"{name}-node"


def _drive(
    block: dict[str, Any], device: str, names: Mapping[str | tuple[str, str], str], taken: set[str]
) -> Drive:
    inserted = block["inserted"]
    file = str(inserted["image"]["filename"])
    node = str(inserted["node-name"])
    # Of an image over others whose names QEMU would write otherwise, it tells no plain file name.
    name = names.get(file) or names.get((device, node), "")
    if node.startswith(OVERLAY):
        name = device.split("/")[3]
    if not name or name in taken:
        name = _free(device.removesuffix("/virtio-backend").rpartition("/")[2], taken | set(names.values()))
    return Drive(name, device, node, int(inserted["image"]["virtual-size"]), file)


def _free(name: str, taken: set[str]) -> str:
    choices = (name if number == 1 else f"{name}-{number}" for number in range(1, len(taken) + 2))
    return next(choice for choice in choices if choice not in taken)


async def _refuse_threads(qmp: Qmp) -> None:
    version = (await qmp.execute("query-version"))["qemu"]
    if version["major"] < _THREADS_SINCE and await qmp.execute("query-iothreads"):
        known = f"{version['major']}.{version['minor']}"
        raise _refused(f"it has I/O threads, and QEMU {known} would crash when a reader hangs up")


def _refused(reason: str) -> RefusedError:
    return RefusedError(
        f"the disks of this VM cannot be looked at while it runs: {reason}",
        kind="disks-hidden",
        remedy="stop the VM and look at it then",
    )
