"""What moving disks put into QEMU, by its names, and how all of it is taken out again.

Promise: `clear` asks QEMU what is there and takes out that alone: at the end, after an error, and after a
daemon that died at any point; what the guest wrote to an overlay is in its disk then. A mirror that is
broken off leaves its disk as it is, with every write of the guest in it. It may be repeated.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final

from korora.adapters.hypervisor.disks import outsourcing
from korora.adapters.hypervisor.qmp import Qmp
from korora.adapters.hypervisor.snapshot.graph import standing_still
from korora.errors import ToolError

JOB: Final = "korora-mirror-"
THERE: Final = "korora-there-"
"""The destination's disk, as a node of the source's QEMU."""
INCOMING: Final = "korora-in-"
NOW: Final = "korora-now-"
FROZEN: Final = "korora-frozen-"
WRITTEN: Final = "korora-written-"
"""A dirty bitmap."""
SERVES: Final = "korora-moves-disks"
"""A node that nobody reads, there while QEMU's one NBD server is ours."""
_EXPORTS: Final = re.compile(f"(?:{INCOMING}|{NOW}|{FROZEN}|{outsourcing.NEARER})[0-9]+")
_GONE_WITHIN_S: Final = 30.0


async def clear(qmp: Qmp) -> None:
    """ToolError when QEMU does not let go of something: the next one finds it."""
    await take_out(qmp)
    try:
        await outsourcing.fold(qmp)
    except ToolError:
        await _break_off(qmp)
        raise


async def take_out(qmp: Qmp) -> None:
    """All but the overlays, which the guest goes on writing to."""
    await _break_off(qmp)
    await withdraw(qmp, await _ours(qmp))
    nodes = await qmp.execute("query-named-block-nodes", {"flat": True})
    if any(node["node-name"] == SERVES for node in nodes):
        if not await qmp.execute("query-block-exports"):  # else it is another's, after all
            with unless_refused():
                await qmp.execute("nbd-server-stop")
        await qmp.execute("blockdev-del", {"node-name": SERVES})
    for node in nodes:
        for bitmap in node.get("dirty-bitmaps", ()):
            if str(bitmap.get("name", "")).startswith(WRITTEN):
                named = {"node": node["node-name"], "name": bitmap["name"]}
                await qmp.execute("block-dirty-bitmap-remove", named)
        if str(node["node-name"]).startswith((THERE, outsourcing.NEARER)):
            await qmp.execute("blockdev-del", {"node-name": node["node-name"]})


async def jobs(qmp: Qmp, ours: str | tuple[str, ...] = JOB) -> dict[str, dict[str, Any]]:
    """Our mirrors, by their names, as QEMU tells of jobs."""
    told = await qmp.execute("query-jobs")
    return {str(job["id"]): job for job in told if str(job["id"]).startswith(ours)}


async def concluded(qmp: Qmp, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """These jobs, once all have ended; dismissed. ToolError(kind="qmp-silent") when one does not end."""
    deadline = time.monotonic() + _GONE_WITHIN_S
    wanted = set(names)
    while True:
        told = await jobs(qmp, ("",))
        if all(told[name]["status"] == "concluded" for name in wanted & told.keys()):
            break
        if time.monotonic() > deadline:
            raise ToolError("QEMU does not end the copying of a disk", kind="qmp-silent")
        await asyncio.sleep(0.005)
    for name in wanted & told.keys():
        await qmp.execute("job-dismiss", {"id": name})
    return told


async def withdraw(qmp: Qmp, exports: Iterable[str]) -> None:
    """Whoever is connected is cut off. QEMU lets go of an export's node a little later."""
    left = set(exports)
    for export in left:
        with unless_refused():  # it is going already
            await qmp.execute("block-export-del", {"id": export, "mode": "hard"})
    deadline = time.monotonic() + _GONE_WITHIN_S
    while left & set(await _ours(qmp)):
        if time.monotonic() > deadline:
            raise ToolError("QEMU does not withdraw the export of a disk", kind="qmp-silent")
        await asyncio.sleep(0.005)


@contextmanager
def unless_refused() -> Iterator[None]:
    try:
        yield
    except ToolError as error:
        if error.kind != "qmp-refused":
            raise


async def _break_off(qmp: Qmp) -> None:
    """With the VM paused for it: under a guest that writes, QEMU 7.2 corrupts its heap and ends."""
    left = await jobs(qmp, (JOB, outsourcing.FOLD))
    going = [name for name, job in left.items() if job["status"] != "concluded"]
    async with standing_still(qmp) if going else nullcontext():
        for name in going:
            with unless_refused():  # it is ending
                await qmp.execute("block-job-cancel", {"device": name, "force": True})
        await concluded(qmp, left)


async def _ours(qmp: Qmp) -> list[str]:
    told = (str(export["id"]) for export in await qmp.execute("query-block-exports"))
    return [name for name in told if _EXPORTS.fullmatch(name)]
