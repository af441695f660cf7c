"""The disks of a running VM as they were at one moment, served for reading while the VM goes on writing.

A filter under each disk copies what is about to be overwritten into a scratch file, and shows the disk as it
was (QEMU's `copy-before-write` and `snapshot-access`, with what QEMU calls image fleecing):

    device ── filter ── the disk's own node          all filters come in between one `stop` and `cont`
                 ├───── scratch (qcow2)
                 └───── the disk as it was ── NBD export at a unix socket

Promise: all disks are of one moment, after every write that was acknowledged before it. A scratch file that
is full or fails breaks what is read here, never a write of the guest. Whatever was put in is taken out again,
in the end, after an error, and where an earlier daemon left it.
Limit: as after a power cut: what the guest had not written yet is not there. QEMU has one NBD server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from korora.adapters.hypervisor.qmp import Qmp
from korora.errors import KororaError, RefusedError, ToolError
from korora.model.image import NbdExport

SOCKET: Final = "disks.sock"
COPY_TIMEOUT_S: Final = 30
_FILTER: Final = "korora-cbw-"
_SCRATCH: Final = "korora-old-"
_SHOWN: Final = "korora-then-"
_EXPORT: Final = "korora-export-"
_STANDS_STILL: Final = {"none", "completed", "failed", "cancelled"}


@dataclass(frozen=True, slots=True)
class _Disk:
    """`device`: its path in QEMU's object tree; `node`: what it writes to; `size` in bytes."""

    name: str
    device: str
    node: str
    size: int


@asynccontextmanager
async def disks_at_one_moment(qmp: Qmp, scratch: Path) -> AsyncIterator[dict[str, NbdExport]]:
    """Each disk by the name of its device. RefusedError while a migration runs; ToolError: the VM is as it
    was.

    `scratch`: a folder that QEMU may write to, with room for what the guest overwrites meanwhile.
    """
    await _refuse_migrating(qmp)
    await clear(qmp)
    disks = _disks(await qmp.execute("query-block"))
    async with AsyncExitStack() as undo:
        for number, disk in enumerate(disks):
            await _add_filter(qmp, undo, scratch, number, disk)
        await _put_in(qmp, undo, disks)
        yield await _exported(qmp, undo, scratch, disks)


async def clear(qmp: Qmp) -> None:
    """Take out what an earlier daemon left in. ToolError when QEMU does not let go of it."""
    nodes = [str(node["node-name"]) for node in await qmp.execute("query-named-block-nodes", {"flat": True})]
    if not any(node.startswith(_FILTER) for node in nodes):
        return
    for export in await qmp.execute("query-block-exports"):
        if str(export["id"]).startswith(_EXPORT):
            await qmp.execute("block-export-del", {"id": export["id"], "mode": "hard"})
            await _until_gone(qmp, str(export["id"]))
    with suppress(ToolError):  # no server: then the daemon died before there was one
        await qmp.execute("nbd-server-stop")
    await _delete(qmp, nodes, _SHOWN)  # first: what is above a filter keeps its disk
    below = await _below(qmp)
    for block in await qmp.execute("query-block"):
        node = str(block.get("inserted", {}).get("node-name", ""))
        if node.startswith(_FILTER) and block.get("qdev"):
            await _set_drive(qmp, _path(str(block["qdev"])), below[node])
    await _delete(qmp, nodes, _FILTER)
    await _delete(qmp, nodes, _SCRATCH)


async def _delete(qmp: Qmp, nodes: Sequence[str], prefix: str) -> None:
    for node in nodes:
        if node.startswith(prefix):
            await qmp.execute("blockdev-del", {"node-name": node})


async def _below(qmp: Qmp) -> dict[str, str]:
    """What each filter lies upon."""
    graph = await qmp.execute("x-debug-query-block-graph")
    names = {node["id"]: str(node["name"]) for node in graph["nodes"]}
    return {
        names[edge["parent"]]: names[edge["child"]]
        for edge in graph["edges"]
        if edge["name"] == "file" and names[edge["parent"]].startswith(_FILTER)
    }


async def _refuse_migrating(qmp: Qmp) -> None:
    status = (await qmp.execute("query-migrate")).get("status", "none")
    if status not in _STANDS_STILL:
        raise RefusedError(
            "the VM's state is just being sent: its disks cannot be looked at meanwhile",
            kind="moving",
            remedy="wait for the migration's outcome",
        )


def _disks(blocks: Sequence[dict[str, Any]]) -> list[_Disk]:
    """Those that a device of the guest has; not the firmware's flash, and no drive for other media."""
    found = []
    for block in blocks:
        device, inserted = str(block.get("qdev") or ""), block.get("inserted")
        if device and inserted and not block.get("removable"):
            name = device.rstrip("/").removesuffix("/virtio-backend").rpartition("/")[2]
            found.append(
                _Disk(name, _path(device), str(inserted["node-name"]), int(inserted["image"]["virtual-size"]))
            )
    return found


def _path(device: str) -> str:
    """A device's id, or its path already."""
    return device if device.startswith("/") else f"/machine/peripheral/{device}"


async def _add_filter(qmp: Qmp, undo: AsyncExitStack, scratch: Path, number: int, disk: _Disk) -> None:
    file = scratch / f"old-{number}.qcow2"
    await _made(file, disk.size)
    nodes: tuple[dict[str, object], ...] = (
        {
            "driver": "qcow2",
            "node-name": f"{_SCRATCH}{number}",
            "file": {"driver": "file", "filename": str(file)},
        },
        {
            "driver": "copy-before-write",
            "node-name": f"{_FILTER}{number}",
            "file": disk.node,
            "target": f"{_SCRATCH}{number}",
            "on-cbw-error": "break-snapshot",
            "cbw-timeout": COPY_TIMEOUT_S,
        },
    )
    for node in nodes:
        await _add_node(qmp, undo, node)


async def _add_node(qmp: Qmp, undo: AsyncExitStack, node: Mapping[str, object]) -> None:
    await qmp.execute("blockdev-add", node)
    undo.push_async_callback(_quietly, qmp, "blockdev-del", {"node-name": node["node-name"]})


async def _made(file: Path, size: int) -> None:
    command = ["qemu-img", "create", "-q", "-f", "qcow2", str(file), str(size)]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    if process.returncode != 0:
        words = said.decode("utf-8", "replace").strip()[:300]
        raise ToolError(f"no scratch file could be made for a snapshot: {words}", kind="snapshot")


async def _put_in(qmp: Qmp, undo: AsyncExitStack, disks: Sequence[_Disk]) -> None:
    """The moment: no write is under way, and the next ones go through the filters."""
    running = bool((await qmp.execute("query-status"))["running"])
    if running:
        await qmp.execute("stop")
    try:
        for number, disk in enumerate(disks):
            await _set_drive(qmp, disk.device, f"{_FILTER}{number}")
            undo.push_async_callback(_take_out, qmp, disk)
    finally:
        if running:
            await qmp.execute("cont")


async def _take_out(qmp: Qmp, disk: _Disk) -> None:
    with suppress(ToolError):  # its QEMU is gone, or the next daemon finds it
        await _set_drive(qmp, disk.device, disk.node)


async def _set_drive(qmp: Qmp, device: str, node: str) -> None:
    await qmp.execute("qom-set", {"path": device, "property": "drive", "value": node})


async def _exported(
    qmp: Qmp, undo: AsyncExitStack, scratch: Path, disks: Sequence[_Disk]
) -> dict[str, NbdExport]:
    socket = scratch / SOCKET
    address = {"type": "unix", "data": {"path": str(socket)}}
    try:
        await qmp.execute("nbd-server-start", {"addr": address, "max-connections": 0})
    except ToolError as error:
        raise ToolError(
            f"QEMU serves disks to somebody else already: {error.message}",
            kind="snapshot",
            remedy="end that backup first; QEMU has one NBD server",
        ) from error
    undo.push_async_callback(_quietly, qmp, "nbd-server-stop", {})
    exports = {}
    for number, disk in enumerate(disks):
        # Only now: with somebody above it, the filter lets nobody write to what it lies upon but through it.
        shown = {"driver": "snapshot-access", "node-name": f"{_SHOWN}{number}", "file": f"{_FILTER}{number}"}
        await _add_node(qmp, undo, shown)
        export = {
            "type": "nbd",
            "id": f"{_EXPORT}{number}",
            "node-name": f"{_SHOWN}{number}",
            "name": disk.name,
            "writable": False,
        }
        await qmp.execute("block-export-add", export)
        undo.push_async_callback(_withdrawn, qmp, f"{_EXPORT}{number}")
        exports[disk.name] = NbdExport(socket, disk.name)
    return exports


async def _withdrawn(qmp: Qmp, export: str) -> None:
    await _quietly(qmp, "block-export-del", {"id": export, "mode": "hard"})
    with suppress(ToolError):
        await _until_gone(qmp, export)


async def _until_gone(qmp: Qmp, export: str) -> None:
    """QEMU lets go of an export's node a little later."""
    async with asyncio.timeout(COPY_TIMEOUT_S):
        # QEMU has an event for it, which may have come before anybody listened.
        while any(  # noqa: ASYNC110
            one["id"] == export for one in await qmp.execute("query-block-exports")
        ):
            await asyncio.sleep(0.01)


async def _quietly(qmp: Qmp, command: str, arguments: dict[str, object]) -> None:
    """To undo goes on, whatever cannot be undone: `clear` finds it."""
    with suppress(KororaError):
        await qmp.execute(command, arguments)
