"""Disks of a live QEMU on their way: `blockdev-mirror` into an NBD export, and dirty bitmaps on both sides.

    source                                              destination
    device ── disk ◀── mirror ──▶ NBD client ─ ─ ─ ─ ▶ NBD server ──▶ disk ── device (has never run)
                 └── NBD server, read-only                      └── read-only, at the same socket

The guest's writes follow in the background; what is left of them is written there at the cut, with the VM
paused (why not at once: docs/adr/0017). What was written since a disk was last measured is in a bitmap of
whole chunks of the content tree; QEMU sets a bit once a write is done, so that whoever reads a chunk whose
bit is set afterwards has read what is there, or finds the bit set the next time.
Promise: nothing that fails here harms the source's disk. Limit: QEMU has one NBD server; a disk cannot be
looked at as it was at one moment meanwhile.
A disk that is `reached` is not mirrored: whoever reads what was `written` writes it to the NBD server there,
by itself. QEMU has no job then that could fail, and no write of the guest waits (docs/adr/0019). Who reads a
raw disk need not ask QEMU for its bytes: they are read from its file, after the bitmap was begun as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from korora.adapters.hypervisor.command_line import socket_path
from korora.adapters.hypervisor.disks import leftover
from korora.adapters.hypervisor.qmp import Qmp
from korora.adapters.hypervisor.serving import serve, serve_alone
from korora.adapters.hypervisor.snapshot.drives import Drive
from korora.adapters.image import nbd
from korora.adapters.image.writable import WritableExport
from korora.errors import ToolError
from korora.model.image import NbdExport
from korora.ports.moving_disks import Copied

SOCKET: Final = "disks.sock"
_CONNECTS_WITHIN_S: Final = 60.0
"""The other host's QEMU answers through the data plane."""
GRANULARITY: Final = 64 << 10
"""Of what was written, in bytes: as little as QEMU keeps a bit for without being asked."""


class QemuMovingDisks:
    """Implements `ports.moving_disks.MovingDisks`. `directory`: QEMU's own working folder.

    `own_socket`: it makes its socket itself, because it takes no descriptors.
    """

    def __init__(
        self, qmp: Qmp, drives: Sequence[Drive], directory: Path, *, own_socket: bool = False
    ) -> None:
        self._qmp = qmp
        self._own_socket = own_socket
        self._drives = {drive.name: drive for drive in drives}
        self._number = {drive.name: number for number, drive in enumerate(drives)}
        self._directory = directory
        self._rounds = dict.fromkeys(self._drives, 0)
        self._serves = False
        self._reached: set[str] = set()

    @property
    def sizes(self) -> Mapping[str, int]:
        return {name: drive.size for name, drive in self._drives.items()}

    @property
    def socket(self) -> Path:
        return self._directory / SOCKET

    async def receive(self) -> None:
        await self._serve()
        for name, drive in self._drives.items():
            await self._export(f"{leftover.INCOMING}{self._number[name]}", drive, name, writable=True)

    async def mirror(self, name: str, socket: Path) -> None:
        number, drive = self._number[name], self._drives[name]
        there = {
            "driver": "nbd",
            "node-name": f"{leftover.THERE}{number}",
            "server": {
                "type": "unix",
                "path": socket_path(socket, None if self._own_socket else self._directory),
            },
            "export": name,
            "discard": "unmap",
        }
        copying = {
            "job-id": f"{leftover.JOB}{number}",
            "device": drive.node,
            "target": there["node-name"],
            "sync": "full",
            "copy-mode": "background",
            "on-source-error": "report",
            "on-target-error": "report",
            "auto-dismiss": False,
        }
        await self._qmp.execute("blockdev-add", there, deadline_s=_CONNECTS_WITHIN_S)
        await self._qmp.execute("blockdev-mirror", copying, deadline_s=_CONNECTS_WITHIN_S)

    async def reach(self, name: str, socket: Path) -> WritableExport:
        self._reached.add(name)
        return await asyncio.to_thread(_reached, name, socket)

    async def copied(self) -> Copied:
        told = await leftover.jobs(self._qmp)
        for name in self._mirrored():
            _refuse_failed(name, told.get(f"{leftover.JOB}{self._number[name]}"))
        running = told.values()
        return Copied(
            sum(job["current-progress"] for job in running),
            sum(job["total-progress"] for job in running),
            all(job["status"] == "ready" for job in running),
        )

    async def cut(self) -> None:
        if not (await self.copied()).ready:
            raise _failed("a disk", "it was not yet the same there when the VM was paused")
        names = {f"{leftover.JOB}{self._number[name]}": name for name in self._mirrored()}
        for job in names:  # of a mirror that is ready, this is its good end
            await self._qmp.execute("block-job-cancel", {"device": job})
        ended = await leftover.concluded(self._qmp, names)
        for job, name in names.items():
            if job not in ended or ended[job].get("error"):
                raise _failed(name, ended.get(job, {}).get("error", "QEMU forgot its job"))
        for name in self._mirrored():
            await self._qmp.execute("blockdev-del", {"node-name": f"{leftover.THERE}{self._number[name]}"})

    @asynccontextmanager
    async def written(self, name: str) -> AsyncIterator[NbdExport]:
        drive, round_ = self._drives[name], self._rounds[name]
        await self._serve()
        before = f"{leftover.WRITTEN}{round_ - 1}" if round_ else ""
        actions: list[dict[str, Any]] = [
            _bitmap("add", drive, f"{leftover.WRITTEN}{round_}", granularity=GRANULARITY)
        ]
        if before:
            actions.append(_bitmap("disable", drive, before))
        await self._qmp.execute("transaction", {"actions": actions})
        self._rounds[name] = round_ + 1
        export = f"{leftover.NOW}{self._number[name]}"
        shown = f"{name}@{round_}"
        await self._export(export, drive, shown, bitmaps=[before] if before else [])
        try:
            yield NbdExport(self.socket, shown, before, await self._file(drive))
        finally:
            await leftover.withdraw(self._qmp, [export])
            if before:
                named = {"node": drive.node, "name": before}
                await self._qmp.execute("block-dirty-bitmap-remove", named)

    async def end(self) -> None:
        await leftover.clear(self._qmp)
        self._serves = False
        self._reached.clear()
        self._rounds = dict.fromkeys(self._drives, 0)
        self.socket.unlink(missing_ok=True)

    async def _file(self, drive: Drive) -> Path | None:
        """Where the bytes of a raw disk lie, if QEMU goes through the kernel's cache to them."""
        told = await self._qmp.execute("query-named-block-nodes", {"flat": True})
        node = next(one for one in told if one["node-name"] == drive.node)
        path = Path(str(node["file"]))
        raw = node["drv"] == "raw" and not node["cache"]["direct"] and path.is_file()
        return path if raw and path.stat().st_size == drive.size else None

    def _mirrored(self) -> list[str]:
        return [name for name in self._drives if name not in self._reached]

    async def _serve(self) -> None:
        if self._serves:
            return
        mark = {"driver": "null-co", "node-name": leftover.SERVES, "size": 512}
        await self._qmp.execute("blockdev-add", mark)
        try:
            await (serve_alone if self._own_socket else serve)(self._qmp, self.socket)
        except ToolError as error:
            if error.kind != "qmp-refused":
                raise
            await self._qmp.execute("blockdev-del", {"node-name": leftover.SERVES})  # before it is believed
            raise ToolError(
                f"QEMU does not serve the disks of the VM: {error.message}",
                kind="disks-served",
                remedy="QEMU has one NBD server: if a backup uses it, wait for its end",
            ) from error
        self._serves = True

    async def _export(
        self, export: str, drive: Drive, name: str, *, writable: bool = False, bitmaps: Sequence[str] = ()
    ) -> None:
        served: dict[str, object] = {
            "type": "nbd",
            "id": export,
            "node-name": drive.node,
            "name": name,
            "writable": writable,
        }
        if bitmaps:
            served["bitmaps"] = list(bitmaps)
        await self._qmp.execute("block-export-add", served)


def _bitmap(what: str, drive: Drive, name: str, **more: object) -> dict[str, Any]:
    return {"type": f"block-dirty-bitmap-{what}", "data": {"node": drive.node, "name": name, **more}}


def _reached(name: str, socket: Path) -> WritableExport:
    """One connection, as a mirror has."""
    handle = nbd.library().NBD()
    handle.set_export_name(name)
    try:
        handle.connect_unix(str(socket))
    except nbd.library().Error as error:
        raise _failed(name, f"the other host does not take it: {error}") from error
    return WritableExport([handle])


def _refuse_failed(name: str, job: Mapping[str, Any] | None) -> None:
    if job is None or job.get("error") or job["status"] in {"concluded", "aborting", "null"}:
        raise _failed(name, (job or {}).get("error", "QEMU has ended it"))


def _failed(name: str, reason: str) -> ToolError:
    return ToolError(
        f"the disk {name} was not copied to the other host: {reason}",
        kind="mirror-failed",
        remedy="see that there is room for it at the destination, that both disks can be read and written,"
        " and that the network holds; the disk here is as the guest left it",
    )
