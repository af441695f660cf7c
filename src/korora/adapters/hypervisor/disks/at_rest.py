"""Disks of a stopped VM on their way: QEMU's storage daemon holds them, as QEMU would if the VM ran.

Promise: it opens them as the definition says, and no other file; it ends with `end`, or with this process.
Limit: QEMU's locks keep a second writer away, not one who starts to write to what is only read here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

from korora.adapters.hypervisor.command_line import block_device, checked_socket_name
from korora.adapters.hypervisor.disks.moving import QemuMovingDisks
from korora.adapters.hypervisor.process import words_of
from korora.adapters.hypervisor.qmp import Qmp
from korora.adapters.hypervisor.snapshot.drives import Drive
from korora.errors import ToolError
from korora.model.image import NbdExport
from korora.model.vm import Disk
from korora.ports.moving_disks import Copied, DiskHere, DiskThere, Load

CONTROL: Final = "disks-qmp.sock"
_STARTS_WITHIN_S: Final = 30.0
_ENDS_WITHIN_S: Final = 10.0


class DisksAtRest:
    """Implements `ports.moving_disks.MovingDisks`. Made by `disks_at_rest`."""

    def __init__(self, process: asyncio.subprocess.Process, qmp: Qmp, moving: QemuMovingDisks) -> None:
        self._process = process
        self._qmp = qmp
        self._moving = moving

    @property
    def sizes(self) -> Mapping[str, int]:
        return self._moving.sizes

    @property
    def socket(self) -> Path:
        return self._moving.socket

    async def receive(self) -> None:
        await self._moving.receive()

    async def fill(self, name: str) -> DiskHere:
        return await self._moving.fill(name)

    async def mirror(self, name: str, socket: Path, cap_bytes_per_s: int = 0) -> None:
        await self._moving.mirror(name, socket, cap_bytes_per_s)

    async def load(self) -> Load:
        return Load(0, 0.0)

    def shown(self, name: str) -> AbstractAsyncContextManager[NbdExport]:
        return self._moving.shown(name)

    def refuse_unfit(self, folder: Path) -> None:
        """Nobody writes."""

    async def outsource(self, name: str, folder: Path) -> None:
        await self._moving.outsource(name, folder)

    def frozen(self, name: str) -> AbstractAsyncContextManager[NbdExport]:
        return self._moving.frozen(name)

    async def reach(self, name: str, socket: Path) -> DiskThere:
        return await self._moving.reach(name, socket)

    def nearer(self, name: str) -> AbstractAsyncContextManager[NbdExport]:
        return self._moving.nearer(name)

    def room_nearer(self, name: str) -> int:
        """None: nobody reads."""
        return self._moving.room_nearer(name)

    async def copied(self) -> Copied:
        return await self._moving.copied()

    async def cut(self) -> None:
        await self._moving.cut()

    def written(self, name: str) -> AbstractAsyncContextManager[NbdExport]:
        return self._moving.written(name)

    async def stand_by(self) -> None:
        """It serves until `end`: nobody waits for it."""
        await self._moving.refuse_changed()

    async def end(self) -> None:
        """Everything that was put in ends with the daemon."""
        await _ended(self._process)
        await self._qmp.close()
        self._moving.socket.unlink(missing_ok=True)
        self._moving.socket.with_name(CONTROL).unlink(missing_ok=True)


async def disks_at_rest(disks: Sequence[Disk], directory: Path, *, writable: bool) -> DisksAtRest:
    """`directory`: a private folder for sockets. ToolError(kind="disks-in-use") when one cannot be had."""
    control = directory / CONTROL
    control.unlink(missing_ok=True)
    words = [
        "--chardev",
        f"socket,id=qmp,path={checked_socket_name(str(control), control)},server=on,wait=on",
    ]
    words += ["--monitor", "chardev=qmp"]
    for disk in disks:
        words += ["--blockdev", json.dumps(block_device(disk) | {"read-only": not writable})]
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", "qemu-storage-daemon", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        qmp = await Qmp.connect(control, _STARTS_WITHIN_S, lambda: process.returncode is None)
    except ToolError as error:
        raise await _not_had(process, error) from error
    except BaseException:
        await _ended(process)
        raise
    try:
        nodes = await qmp.execute("query-named-block-nodes", {"flat": True})
        sizes = {str(node["node-name"]): int(node["image"]["virtual-size"]) for node in nodes}
        drives = [_drive(disk, sizes) for disk in disks]
    except BaseException:
        await _ended(process)
        raise
    return DisksAtRest(process, qmp, QemuMovingDisks(qmp, drives, directory, own_socket=True, disks=disks))


def _drive(disk: Disk, sizes: Mapping[str, int]) -> Drive:
    node = str(block_device(disk)["node-name"])
    return Drive(disk.name, "", node, sizes[node], disk.path)


async def _not_had(process: asyncio.subprocess.Process, error: ToolError) -> ToolError:
    await _ended(process)
    said = words_of((await process.stderr.read()).decode("utf-8", "replace")) if process.stderr else ""
    return ToolError(
        f"the disks of the stopped VM cannot be had: {said or error.message}",
        kind="disks-in-use",
        remedy="see that nothing else uses them, and that they are where the VM's definition says",
    )


async def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _ENDS_WITHIN_S)
        except TimeoutError:
            process.kill()
            await process.wait()
