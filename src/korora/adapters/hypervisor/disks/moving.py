"""Disks of a live QEMU on their way: `blockdev-mirror` into an NBD export, and dirty bitmaps on both sides.

    source                                              destination
    device ── disk ◀── mirror ──▶ NBD client ─ ─ ─ ─ ▶ NBD server ──▶ disk ── device (has never run)
                 └── NBD server, read-only                      └── read-only, at the same socket

The guest's writes follow in the background; what is left of them is written there at the cut, with the VM
paused (why not at once: docs/adr/0017). What was written since a disk was last measured is in a bitmap; QEMU
sets a bit once a write is done, so that whoever reads what it stands for afterwards has read what is there,
or finds the bit set the next time.
Promise: nothing that fails here harms the source's disk. Limit: QEMU has one NBD server; a disk cannot be
looked at as it was at one moment meanwhile.
A disk that is `reached` is not mirrored: whoever reads what was `written`, or of an outsourced disk what is
`frozen`, writes it to the NBD server there, by itself. QEMU has no job then that could fail, and no write of
the guest waits (docs/adr/0018, 0019). Who reads a
raw disk need not ask QEMU for its bytes: they are read from the file that the VM's definition names, and no
other that QEMU may name, after the bitmap was begun as well.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from korora.adapters.hypervisor.command_line import socket_path
from korora.adapters.hypervisor.disks import leftover, outsourcing, overlay, replacement
from korora.adapters.hypervisor.disks.folding import fold_back
from korora.adapters.hypervisor.disks.intruders import Intruders
from korora.adapters.hypervisor.disks.overlay import Outsourced
from korora.adapters.hypervisor.disks.reaching import reached
from korora.adapters.hypervisor.disks.replacement import Claims
from korora.adapters.hypervisor.disks.starving import starved_s
from korora.adapters.hypervisor.disks.unchanged import file_of, refuse_changed
from korora.adapters.hypervisor.qmp import Qmp
from korora.adapters.hypervisor.serving import serve, serve_alone
from korora.adapters.hypervisor.snapshot.drives import OVERLAY, Drive
from korora.adapters.hypervisor.snapshot.graph import path_of
from korora.adapters.hypervisor.wide import widen
from korora.adapters.image.writable import WritableExport
from korora.errors import ToolError
from korora.model.image import NbdExport
from korora.model.vm import Disk
from korora.ports.moving_disks import Copied, CopyFailedError, Load

SOCKET: Final = "disks.sock"
SHALLOW_BYTES: Final = 1 << 19
"""What a mirror with a cap reads at once."""
_CONNECTS_WITHIN_S: Final = 60.0
"""The other host's QEMU answers through the data plane."""
GRANULARITY: Final = 4096
"""Of what was written, in bytes: as guests write. Of larger disks as much as keeps a bitmap small."""
_BITS_MAX: Final = 1 << 26  # 8 MiB


class QemuMovingDisks:
    """Implements `ports.moving_disks.MovingDisks`. `directory`: QEMU's own working folder.

    `own_socket`: it makes its socket itself, because it takes no descriptors. `disks`: as they are defined,
    for those whose writes may go elsewhere meanwhile. `claims`: of all VMs that this daemon moves.
    """

    def __init__(
        self,
        qmp: Qmp,
        drives: Sequence[Drive],
        directory: Path,
        *,
        own_socket: bool = False,
        disks: Iterable[Disk] = (),
        claims: Claims | None = None,
    ) -> None:
        self._qmp = qmp
        self._claims = claims or Claims()
        self._own_socket = own_socket
        self._drives = {drive.name: drive for drive in drives}
        self._number = {drive.name: number for number, drive in enumerate(drives)}
        self._directory = directory
        self._rounds = dict.fromkeys(self._drives, 0)
        self._serves = False
        self._mirrored: list[str] = []
        self._reached: set[str] = set()
        self._defined = {disk.name: disk for disk in disks}
        self._node = {drive.name: drive.node for drive in drives}
        self._outsourced: dict[str, Outsourced] = {}
        self._capped = False
        self._intruders = Intruders(qmp.peer_pid)
        self._one_at_a_time = asyncio.Lock()  # several disks may be copied at once; record and server are one

    @property
    def sizes(self) -> Mapping[str, int]:
        return {name: drive.size for name, drive in self._drives.items()}

    @property
    def socket(self) -> Path:
        return self._directory / SOCKET

    @property
    def outsources(self) -> bool:
        """Whether the guest writes past its disks just now, because of this move."""
        return bool(self._outsourced)

    async def receive(self) -> None:
        await self._serve()
        for name, node in self._node.items():
            await self._export(f"{leftover.INCOMING}{self._number[name]}", node, name, writable=True)

    async def fill(self, name: str) -> WritableExport:
        return await asyncio.to_thread(reached, name, self.socket)

    async def mirror(self, name: str, socket: Path, cap_bytes_per_s: int = 0) -> None:
        await self._watch(name)
        await self._connect(name, socket)
        capped = _gently(cap_bytes_per_s) if cap_bytes_per_s else {}
        await self._copy(name, {"device": self._drives[name].node, "sync": "full", **capped})
        self._mirrored.append(name)
        self._capped = bool(capped)

    async def load(self) -> Load:
        requests, waited_ns = 0, 0
        ours = {drive.device for drive in self._drives.values()}
        for block in await self._qmp.execute("query-blockstats"):
            if path_of(str(block.get("qdev", ""))) in ours:
                counts = block["stats"]
                requests += counts["rd_operations"] + counts["wr_operations"]
                waited_ns += counts["rd_total_time_ns"] + counts["wr_total_time_ns"]
        cpus = {cpu["thread-id"] for cpu in await self._qmp.execute("query-cpus-fast")}
        starved = await asyncio.to_thread(starved_s, self._qmp.peer_pid, cpus)
        return Load(requests, waited_ns / 1e9, starved)

    @asynccontextmanager
    async def shown(self, name: str) -> AsyncIterator[NbdExport]:
        async with self._given_out(
            f"{leftover.NOW}{self._number[name]}", self._node[name], f"{name}="
        ) as export:
            yield export

    async def outsource(self, name: str, folder: Path) -> None:
        async with self._one_at_a_time:
            await asyncio.to_thread(self._claims.claim, *self._claimed(folder))
            await self._outsource(name, folder)

    async def _outsource(self, name: str, folder: Path) -> None:
        number, drive, disk = self._number[name], self._drives[name], self._defined[name]
        await self._watch(name)
        path = folder / f"korora-{self._directory.name}-{name}-{secrets.token_hex(4)}"
        entry = Outsourced(
            name, disk.path, disk.format, f"{path}.qcow2", f"{path}.cache.qcow2", backing=disk.backing
        )
        await self._note(entry)  # so that the file is removed, whatever happens
        await overlay.make_overlay(entry, drive.size)
        await self._note(msgspec.structs.replace(entry, used=True))
        self._node[name] = f"{OVERLAY}{number}"
        bitmap = _bitmap(
            "add", self._node[name], f"{leftover.WRITTEN}0", granularity=_granularity(drive.size)
        )
        await outsourcing.put_over(self._qmp, number, drive.node, entry.overlay, entry.cache, bitmap)
        self._rounds[name] = 1

    async def reach(self, name: str, socket: Path) -> WritableExport:
        await self._watch(name)
        self._reached.add(name)
        return await asyncio.to_thread(reached, name, socket)

    async def copied(self) -> Copied:
        await asyncio.to_thread(self._intruders.refuse)
        told = await leftover.jobs(self._qmp)
        for name in self._mirrored:
            _refuse_failed(name, told.get(f"{leftover.JOB}{self._number[name]}"))
        for entry in self._outsourced.values():
            replacement.refuse_low(Path(entry.overlay).parent, self.sizes.values())
        running = told.values()
        copied = Copied(
            sum(job["current-progress"] for job in running),
            sum(job["total-progress"] for job in running),
            all(job["status"] == "ready" for job in running),
            self._read(told),
        )
        if self._capped and (copied.ready or copied.done >= sum(self.sizes.values())):
            await self._uncap(told)
        return copied

    def _read(self, told: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
        """A mirror goes from the beginning to the end, with some under way; what it did again comes last."""
        done = {
            name: told[f"{leftover.JOB}{self._number[name]}"]["current-progress"] for name in self._mirrored
        }
        return {name: min(count, self.sizes[name]) for name, count in done.items()}

    async def cut(self) -> None:
        copied = self._drives.keys() <= {*self._mirrored, *self._reached}
        if not (copied and (await self.copied()).ready):
            raise CopyFailedError("a disk", "it was not yet the same there when the VM was paused")
        names = {f"{leftover.JOB}{self._number[name]}": name for name in self._mirrored}
        for job in names:  # of a mirror that is ready, this is its good end
            await self._qmp.execute("block-job-cancel", {"device": job})
        ended = await leftover.concluded(self._qmp, names)
        for job, name in names.items():
            if job not in ended or ended[job].get("error"):
                raise CopyFailedError(name, ended.get(job, {}).get("error", "QEMU forgot its job"))
        for name in self._mirrored:
            await self._qmp.execute("blockdev-del", {"node-name": f"{leftover.THERE}{self._number[name]}"})

    @asynccontextmanager
    async def frozen(self, name: str) -> AsyncIterator[NbdExport]:
        async with self._given_out(
            f"{leftover.FROZEN}{self._number[name]}", self._drives[name].node, f"{name}-"
        ) as export:
            yield export

    @asynccontextmanager
    async def nearer(self, name: str) -> AsyncIterator[NbdExport]:
        node = f"{outsourcing.NEARER}{self._number[name]}"
        async with self._given_out(node, node, f"{name}+") as export:
            yield export

    def room_nearer(self, name: str) -> int:
        return self._claims.to_spare(self._directory) if name in self._outsourced else 0

    @asynccontextmanager
    async def written(self, name: str) -> AsyncIterator[NbdExport]:
        node, round_ = self._node[name], self._rounds[name]
        await refuse_changed(self._qmp, [self._drives[name]], self._node)
        await self._serve()
        before = f"{leftover.WRITTEN}{round_ - 1}" if round_ else ""
        actions: list[dict[str, Any]] = [
            _bitmap(
                "add", node, f"{leftover.WRITTEN}{round_}", granularity=_granularity(self._drives[name].size)
            )
        ]
        if before:
            actions.append(_bitmap("disable", node, before))
        await self._qmp.execute("transaction", {"actions": actions})
        self._rounds[name] = round_ + 1
        export = f"{leftover.NOW}{self._number[name]}"
        shown = f"{name}@{round_}"
        await self._export(export, node, shown, bitmaps=[before] if before else [])
        try:
            size = self._drives[name].size
            file = await file_of(self._qmp, node, self._defined.get(name), size)
            yield NbdExport(self.socket, shown, before, file)
        finally:
            await leftover.withdraw(self._qmp, [export])
            if before:
                named = {"node": node, "name": before}
                await self._qmp.execute("block-dirty-bitmap-remove", named)

    async def refuse_changed(self) -> None:
        """As `stand_by` does; nothing is taken out."""
        await asyncio.to_thread(self._intruders.refuse)
        await refuse_changed(self._qmp, self._drives.values(), self._node)

    async def stand_by(self) -> None:
        await self.refuse_changed()
        self._intruders.close()
        await leftover.take_out(self._qmp)
        self._forget_copies()

    async def end(self) -> None:
        self._intruders.close()
        try:
            await fold_back(self._qmp, self._directory)
        finally:
            self._outsourced.clear()
            self._claims.release(self._directory)
            self._node = {drive.name: drive.node for drive in self._drives.values()}
            self._forget_copies()

    def _forget_copies(self) -> None:
        self._serves = False
        self._mirrored.clear()
        self._reached.clear()
        self._rounds = dict.fromkeys(self._drives, 0)
        self.socket.unlink(missing_ok=True)

    def refuse_unfit(self, folder: Path) -> None:
        self._claims.refuse_unfit(*self._claimed(folder))

    def _claimed(self, folder: Path) -> tuple[Path, Path, list[int], list[str]]:
        paths = [self._defined[name].path for name in self._drives]
        return self._directory, folder, list(self.sizes.values()), paths

    async def _watch(self, name: str) -> None:
        if name in self._defined:
            await asyncio.to_thread(self._intruders.watch, name, Path(self._defined[name].path))

    async def _note(self, entry: Outsourced) -> None:
        self._outsourced[entry.disk] = entry
        try:
            await asyncio.to_thread(overlay.note, self._directory, tuple(self._outsourced.values()))
        except OSError as error:
            raise overlay.not_noted(self._directory, error) from error

    async def _connect(self, name: str, socket: Path) -> None:
        there = {
            "driver": "nbd",
            "node-name": f"{leftover.THERE}{self._number[name]}",
            "server": {
                "type": "unix",
                "path": socket_path(socket, None if self._own_socket else self._directory),
            },
            "export": name,
            "discard": "unmap",
        }
        await self._qmp.execute("blockdev-add", there, deadline_s=_CONNECTS_WITHIN_S)
        await asyncio.to_thread(widen, self._qmp.peer_pid, str(socket))

    async def _copy(self, name: str, which: Mapping[str, Any]) -> None:
        number = self._number[name]
        copying = {
            "job-id": f"{leftover.JOB}{number}",
            "target": f"{leftover.THERE}{number}",
            "copy-mode": "background",
            "on-source-error": "report",
            "on-target-error": "report",
            "auto-dismiss": False,
            **which,
        }
        await self._qmp.execute("blockdev-mirror", copying, deadline_s=_CONNECTS_WITHIN_S)

    async def _uncap(self, jobs: Iterable[str]) -> None:
        """What the guest writes follows as fast as it can, and the rest of it in the pause."""
        for job in jobs:
            await self._qmp.execute("block-job-set-speed", {"device": job, "speed": 0})
        self._capped = False

    async def _serve(self) -> None:
        async with self._one_at_a_time:
            if not self._serves:
                await self._begin_to_serve()

    async def _begin_to_serve(self) -> None:
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

    @asynccontextmanager
    async def _given_out(self, export: str, node: str, shown: str) -> AsyncIterator[NbdExport]:
        await self._serve()
        await self._export(export, node, shown)
        try:
            yield NbdExport(self.socket, shown)
        finally:
            await leftover.withdraw(self._qmp, [export])

    async def _export(
        self, export: str, node: str, name: str, *, writable: bool = False, bitmaps: Sequence[str] = ()
    ) -> None:
        served: dict[str, object] = {
            "type": "nbd",
            "id": export,
            "node-name": node,
            "name": name,
            "writable": writable,
        }
        if bitmaps:
            served["bitmaps"] = list(bitmaps)
        await self._qmp.execute("block-export-add", served)


def _granularity(size: int) -> int:
    granularity = GRANULARITY
    while size > granularity * _BITS_MAX:
        granularity *= 2
    return granularity


def _bitmap(what: str, node: str, name: str, **more: object) -> dict[str, Any]:
    return {"type": f"block-dirty-bitmap-{what}", "data": {"node": node, "name": name, **more}}


def _gently(cap_bytes_per_s: int) -> dict[str, Any]:
    """What is said to `blockdev-mirror`. In larger pieces than the guest writes it would never end."""
    return {"speed": cap_bytes_per_s, "buf-size": SHALLOW_BYTES, "granularity": GRANULARITY}


def _refuse_failed(name: str, job: Mapping[str, Any] | None) -> None:
    if job is None or job.get("error") or job["status"] in {"concluded", "aborting", "null"}:
        told = job or {}
        raise CopyFailedError(name, told.get("error", "QEMU has ended it"), told.get("current-progress", 0))
