"""What a snapshot puts into QEMU's block graph, by its names, and how all of it is taken out again.

Promise: `clear` asks QEMU what is there and takes out that alone, so it serves after a snapshot, after one
that failed half-way, and after a daemon that died at any point; a VM that stands still for a snapshot runs
on. It may be repeated. Limit: the scratch files are left to whoever owns their folder; of a VM that stands
still their descriptors stay open in QEMU, one for each disk, until a `clear` finds it running.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from korora.adapters.hypervisor.qmp import Qmp
from korora.errors import ToolError

FILTER: Final = "korora-cbw-"
SCRATCH: Final = "korora-old-"
SHOWN: Final = "korora-then-"
EXPORT: Final = "korora-export-"
STANDS_STILL: Final = "korora-stopped"
"""A node that nobody reads, there while a VM stands still for a snapshot: who finds it lets the VM run on."""
FILE: Final = "korora-old"
"""The purpose of the scratch files' descriptors, which QEMU is given."""
SERVES: Final = "korora-serves"
"""Likewise, there while QEMU's one NBD server is ours: who finds it may end that server."""
_OURS: Final = re.compile(f"(?:{FILTER}|{SCRATCH}|{SHOWN}|{EXPORT})[0-9]+|{STANDS_STILL}|{SERVES}")
_GONE_WITHIN_S: Final = 30.0
_RUNS_WITHIN_S: Final = 60.0


async def clear(qmp: Qmp) -> None:
    """Take out what a snapshot put in. ToolError when QEMU does not let go of it: the next one finds it."""
    nodes = await _our_nodes(qmp)
    if STANDS_STILL in nodes:
        await run_on(qmp)
    if nodes:
        await _take_out(qmp, nodes)
    await _take_files_back(qmp)


async def _take_files_back(qmp: Qmp) -> None:
    """While a VM stands still QEMU 7.2 closes none of those: then they wait for the next time."""
    sets = [
        given["fdset-id"]
        for given in await qmp.execute("query-fdsets")
        if any(one.get("opaque") == FILE for one in given["fds"])
    ]
    if sets and (await qmp.execute("query-status"))["running"]:
        for number in sets:
            await qmp.execute("remove-fd", {"fdset-id": number})


async def _take_out(qmp: Qmp, nodes: Sequence[str]) -> None:
    await _withdraw(qmp)
    if SERVES in nodes:
        await end_serving(qmp)
    await _delete(qmp, nodes, SHOWN)  # first: with one of these above it, a filter keeps its disk
    await _give_back(qmp)
    await _delete(qmp, nodes, FILTER)
    await _delete(qmp, nodes, SCRATCH)


async def add_mark(qmp: Qmp, name: str) -> None:
    await qmp.execute("blockdev-add", {"driver": "null-co", "node-name": name, "size": 512})


@asynccontextmanager
async def standing_still(qmp: Qmp) -> AsyncIterator[bool]:
    """With no write of the guest under way. It runs on afterwards, whatever happens, if it ran before."""
    running = bool((await qmp.execute("query-status"))["running"])
    if running:
        await add_mark(qmp, STANDS_STILL)
    try:
        if running:
            await qmp.execute("stop")
        yield running
    finally:
        if running:  # also when `stop` was not answered: it may come to it yet
            await run_on(qmp)


async def run_on(qmp: Qmp) -> None:
    """End the standstill of a VM that ran. QEMU takes commands in turn: these wait for a slow `stop`."""
    status = (await qmp.execute("query-status", deadline_s=_RUNS_WITHIN_S))["status"]
    if status == "paused":
        await qmp.execute("cont", deadline_s=_RUNS_WITHIN_S)
    await qmp.execute("blockdev-del", {"node-name": STANDS_STILL})


async def end_serving(qmp: Qmp) -> None:
    """The NBD server, if it is ours: a daemon may have died just when it learnt that it is another's."""
    if not await qmp.execute("query-block-exports"):
        with _unless_refused():  # there is none
            await qmp.execute("nbd-server-stop")
    await qmp.execute("blockdev-del", {"node-name": SERVES})


async def set_drive(qmp: Qmp, device: str, node: str) -> None:
    """Let a device use another node. Never the one that it uses already: QEMU 7.2 ends by an assertion."""
    await qmp.execute("qom-set", {"path": device, "property": "drive", "value": node})


def path_of(device: str) -> str:
    """A device, as query-block names it, in QEMU's object tree: it is told by its id, if it has one."""
    return device if device.startswith("/") else f"/machine/peripheral/{device}"


def _ours(names: Iterable[str], prefix: str = "") -> list[str]:
    return [name for name in names if name.startswith(prefix) and _OURS.fullmatch(name)]


async def _our_nodes(qmp: Qmp) -> list[str]:
    told = await qmp.execute("query-named-block-nodes", {"flat": True})
    return _ours(str(node["node-name"]) for node in told)


async def _delete(qmp: Qmp, nodes: Sequence[str], prefix: str) -> None:
    for node in _ours(nodes, prefix):
        await qmp.execute("blockdev-del", {"node-name": node})


async def _withdraw(qmp: Qmp) -> None:
    """Readers are cut off. QEMU lets go of an export's node a little later."""
    for export in await _our_exports(qmp):
        with _unless_refused():  # it is going already
            await qmp.execute("block-export-del", {"id": export, "mode": "hard"})
    deadline = time.monotonic() + _GONE_WITHIN_S
    # QEMU has an event for it, which may have come before anybody listened.
    while await _our_exports(qmp):
        if time.monotonic() > deadline:
            raise ToolError("QEMU does not withdraw the export of a disk", kind="snapshot")
        await asyncio.sleep(0.01)


async def _our_exports(qmp: Qmp) -> list[str]:
    return _ours((str(export["id"]) for export in await qmp.execute("query-block-exports")), EXPORT)


async def _give_back(qmp: Qmp) -> None:
    """To each device that has a filter the node that the filter lies upon."""
    below = await _below(qmp)
    for block in await qmp.execute("query-block"):
        node = str((block.get("inserted") or {}).get("node-name", ""))
        if node in below and block.get("qdev"):
            await set_drive(qmp, path_of(str(block["qdev"])), below[node])


async def _below(qmp: Qmp) -> dict[str, str]:
    graph: dict[str, Any] = await qmp.execute("x-debug-query-block-graph")
    names = {node["id"]: str(node["name"]) for node in graph["nodes"]}
    files = {edge["parent"]: edge["child"] for edge in graph["edges"] if edge["name"] == "file"}
    filters = {names[parent]: names[child] for parent, child in files.items()}
    return {name: filters[name] for name in _ours(filters, FILTER)}


@contextmanager
def _unless_refused() -> Any:
    try:
        yield
    except ToolError as error:
        if error.kind != "qmp-refused":
            raise
