"""The disks of a running VM as they were at one moment, served for reading while the VM goes on writing.

A filter under each disk copies what is about to be overwritten into a scratch file, and shows the disk as it
was (QEMU's `copy-before-write` and `snapshot-access`, which QEMU calls image fleecing):

    device ── filter ── the disk's own node          all filters come in between one `stop` and `cont`
                 ├───── scratch (qcow2)
                 └───── the disk as it was ── NBD export at a unix socket

Promise: all disks are of one moment, after every write that was acknowledged before it. A scratch file that
is full, fails or is slow breaks what is read here, never a write of the guest, which waits at most 4 s for
it. Whatever was put in is taken out again: in the end, after an error, and where an earlier daemon left it.
Limit: as after a power cut: what the guest had not written yet is not there, and no guest agent is asked to
write it. QEMU has one NBD server. With a filter in its place a migration would fail at the switchover
(`bdrv_inactivate_all() failed`; the VM runs on): a machine refuses to begin one meanwhile.

QEMU is given descriptors of the scratch files and of the listening socket, so that it need not be allowed to
enter their folder: an adopted one often runs as another account.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from korora.adapters.hypervisor.command_line import checked_socket_name
from korora.adapters.hypervisor.qmp import Qmp
from korora.adapters.hypervisor.serving import listening
from korora.adapters.hypervisor.snapshot import graph
from korora.adapters.hypervisor.snapshot.drives import Drive, drives_of, refuse_moving, write_back
from korora.adapters.hypervisor.snapshot.layers import layers_of
from korora.adapters.hypervisor.uncancelled import to_its_end
from korora.errors import KororaError, ToolError
from korora.model.image import NbdExport
from korora.model.vm import Disk

SOCKET: Final = "disks.sock"
COPY_TIMEOUT_S: Final = 4
"""QEMU 7.2 keeps it as nanoseconds in 32 bits: of 5 s it makes 0.7 s, of 30 s 4.2 s."""


@asynccontextmanager
async def disks_at_one_moment(
    qmp: Qmp, scratch: Path, disks: Iterable[Disk] = ()
) -> AsyncIterator[dict[str, NbdExport]]:
    """Each disk by its name in the definition, or else that of its device; the sockets lie in `scratch`.

    `scratch`: a private folder with room for what the guest overwrites meanwhile.
    RefusedError while it moves, or when its disks cannot be shown; ToolError: the VM is as it was.
    """
    checked_socket_name(str(scratch / SOCKET), scratch / SOCKET)
    await refuse_moving(qmp)
    await graph.clear(qmp)
    drives = await drives_of(qmp, disks)
    files = [scratch / f"old-{number}.qcow2" for number in range(len(drives))]
    try:
        yield await to_its_end(_shown(qmp, scratch, drives, files)) if drives else {}
    except BaseException:
        with suppress(KororaError):  # what is left is found by the next one
            await to_its_end(_over(qmp, files))
        raise
    else:
        await to_its_end(_over(qmp, files))
    finally:
        for file in (*files, scratch / SOCKET):
            file.unlink(missing_ok=True)


async def _over(qmp: Qmp, files: Sequence[Path]) -> None:
    await graph.clear(qmp)
    for file in files:  # which QEMU may still hold, but nobody reads any more
        with suppress(FileNotFoundError):
            os.truncate(file, 0)


async def _shown(
    qmp: Qmp, scratch: Path, drives: Sequence[Drive], files: Sequence[Path]
) -> dict[str, NbdExport]:
    layers = {drive.name: await layers_of(qmp, drive.node) for drive in drives}
    for number, (drive, file) in enumerate(zip(drives, files, strict=True)):
        await _made(file, drive.size)
        await _add_filter(qmp, number, drive, file)
    await asyncio.to_thread(write_back, drives)
    await _put_in(qmp, drives)
    await _serve(qmp, scratch / SOCKET)
    return {
        drive.name: replace(await _exported(qmp, scratch / SOCKET, number, drive), layers=layers[drive.name])
        for number, drive in enumerate(drives)
    }


async def _made(file: Path, size: int) -> None:
    command = ["qemu-img", "create", "-q", "-f", "qcow2", str(file), str(size)]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    if process.returncode != 0:
        words = said.decode("utf-8", "replace").strip()[:300]
        raise ToolError(f"no scratch file could be made for a snapshot: {words}", kind="snapshot")


async def _add_filter(qmp: Qmp, number: int, drive: Drive, file: Path) -> None:
    with _opened(file) as descriptor:
        given = await qmp.give_file(descriptor, graph.FILE)
    scratch: dict[str, object] = {
        "driver": "qcow2",
        "node-name": f"{graph.SCRATCH}{number}",
        "cache": {"no-flush": True},  # nobody wants it after a crash
        "file": {"driver": "file", "filename": given},
    }
    between: dict[str, object] = {
        "driver": "copy-before-write",
        "node-name": f"{graph.FILTER}{number}",
        "file": drive.node,
        "target": f"{graph.SCRATCH}{number}",
        "on-cbw-error": "break-snapshot",
        "cbw-timeout": COPY_TIMEOUT_S,
    }
    await qmp.execute("blockdev-add", scratch)
    await qmp.execute("blockdev-add", between)


@contextmanager
def _opened(file: Path) -> Iterator[int]:
    descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def _put_in(qmp: Qmp, drives: Sequence[Drive]) -> None:
    """The moment: no write is under way, and the next ones go through the filters."""
    async with graph.standing_still(qmp) as running:
        for number, drive in enumerate(drives):
            await graph.set_drive(qmp, drive.device, f"{graph.FILTER}{number}")
    if not running and await _runs(qmp):
        raise ToolError("the VM began to run just when its disks were to be of one moment", kind="snapshot")


async def _runs(qmp: Qmp) -> bool:
    return bool((await qmp.execute("query-status"))["running"])


async def _serve(qmp: Qmp, path: Path) -> None:
    with listening(path) as listener:
        await qmp.give(listener.fileno(), SOCKET)
    address = {"type": "fd", "data": {"str": SOCKET}}
    await graph.add_mark(qmp, graph.SERVES)
    try:
        await qmp.execute("nbd-server-start", {"addr": address, "max-connections": 0})
    except ToolError as error:
        if error.kind != "qmp-refused":
            raise
        await qmp.execute("blockdev-del", {"node-name": graph.SERVES})  # before it is taken for ours
        with suppress(ToolError):  # QEMU took it, and closed it
            await qmp.execute("closefd", {"fdname": SOCKET})
        raise ToolError(
            f"QEMU does not serve the disks of the VM: {error.message}",
            kind="snapshot",
            remedy="QEMU has one NBD server: if a backup uses it, wait for its end",
        ) from error


async def _exported(qmp: Qmp, path: Path, number: int, drive: Drive) -> NbdExport:
    node = f"{graph.SHOWN}{number}"
    # Only now: with somebody above it, the filter lets nobody write to what it lies upon but through it.
    shown = {"driver": "snapshot-access", "node-name": node, "file": f"{graph.FILTER}{number}"}
    export = {
        "type": "nbd",
        "id": f"{graph.EXPORT}{number}",
        "node-name": node,
        "name": drive.name,
        "writable": False,
    }
    await qmp.execute("blockdev-add", shown)
    await qmp.execute("block-export-add", export)
    return NbdExport(path, drive.name, snapshot=True)
