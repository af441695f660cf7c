"""A guest's writes go to an overlay while its disk is read undisturbed; then they are folded back.

    device ── overlay (qcow2) ── cache (qcow2) ── disk, frozen ── NBD server: read once, and sent
                 │                  └── copy-on-read ── NBD server: the same; what is read is in the cache
                 └── a bitmap of what was written since ── NBD server: read again, and sent

Promise: whatever fails, the overlay and the disk together are what the guest wrote; `fold` makes it the disk
alone, with the guest running, and takes the overlay out. A guest that stands still because the overlay's
storage ran full runs on then. It may be repeated. Limit: no more than `fold` knows which disk is which
(overlay.outsourced does).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

from korora.adapters.hypervisor.qmp import Qmp
from korora.adapters.hypervisor.snapshot.drives import OVERLAY
from korora.adapters.hypervisor.snapshot.graph import standing_still
from korora.errors import ToolError
from korora.model.vm import Backing

CACHE: Final = "korora-cache-"
"""What was read from the disk already: never mirrored, never folded back, and worth nothing after a crash."""
NEARER: Final = "korora-nearer-"
"""The filter that fills it. It meets whole clusters of the cache alone (64 KiB), but for the disk's end: with
extended L2 entries, which the cache has not, QEMU 7.2 ended by an assertion where one was cut."""
FOLD: Final = "korora-fold-"
"""A job."""
_OVERLAY: Final[Mapping[str, Any]] = {"driver": "qcow2", "discard": "unmap"}
_CACHE: Final[Mapping[str, Any]] = {"driver": "qcow2", "cache": {"no-flush": True}}
_ELSEWHERE: Final = {"finish-migrate", "inmigrate", "postmigrate"}
"""QEMU 7.2 ends by an assertion when a disk is written to then."""
_PASSES: Final = 3
"""Of a guest that writes as fast as it is folded back: then it stands still for the rest."""
_SLACK_BYTES: Final = 64 << 20
_ENDED: Final = {"concluded", "aborting", "null"}
_LOOKS_EVERY_S: Final = 0.02
_RUNS_WITHIN_S: Final = 60.0


async def put_over(
    qmp: Qmp, number: int, node: str, path: str, cache: str, bitmap: Mapping[str, Any]
) -> None:
    """From here on the guest writes there. On failure it writes to its disk, or `fold` finds it.

    `bitmap`: an action that begins one of the overlay, before it is written to.
    """
    for name, options, file in ((CACHE, _CACHE, cache), (OVERLAY, _OVERLAY, path)):
        below = {"driver": "file", "node-name": _file(name, number), "filename": file, "locking": "on"}
        layer = {**options, "node-name": f"{name}{number}", "backing": None, "file": below}
        await qmp.execute("blockdev-add", layer)
    pairs = ((node, f"{CACHE}{number}"), (f"{CACHE}{number}", f"{OVERLAY}{number}"))
    actions = [bitmap]
    for under, over in pairs:
        actions.append({"type": "blockdev-snapshot", "data": {"node": under, "overlay": over}})
    await qmp.execute("transaction", {"actions": actions})
    await _reopen(qmp, CACHE, number, {**_CACHE, "backing": node, "read-only": False})
    nearer = {"driver": "copy-on-read", "node-name": f"{NEARER}{number}", "file": f"{CACHE}{number}"}
    await qmp.execute("blockdev-add", nearer)


async def fold(qmp: Qmp) -> None:
    """ToolError(kind="not-folded-back") when one cannot be: the VM runs on with its overlay."""
    there = await _named(qmp, OVERLAY)
    used = [node for node in there if node in await _roots(qmp)]
    if used and (await qmp.execute("query-status"))["status"] in _ELSEWHERE:
        raise not_folded(
            "the VM was sent to another host, and QEMU writes to no disk until it runs here again"
        )
    covered = [over for over, under in (await _backings(qmp)).items() if under in there] if there else []
    if covered:
        raise not_folded(
            f"another program has put a snapshot over it ({covered[0]}), which must be merged into it first"
        )
    for node in set(there) - set(used):  # nobody writes to it, or what it held was merged by somebody else
        await qmp.execute("blockdev-del", {"node-name": node})
    await _without_caches(qmp, used)
    if used:
        await _commit(qmp, [node.removeprefix(OVERLAY) for node in used])
    for node in used:
        await qmp.execute("blockdev-del", {"node-name": node})
    status = (await qmp.execute("query-status"))["status"]
    if used and status == "io-error":  # its write waits since the overlay had no room for it
        await qmp.execute("cont", deadline_s=_RUNS_WITHIN_S)


@dataclass(frozen=True, slots=True)
class Opened:
    """An overlay that a guest writes to, as paths. No `cache` once it was taken out; `backing` lies beneath
    the original."""

    original: str
    format: str
    overlay: str
    cache: str
    backing: tuple[Backing, ...] = ()


async def opened(qmp: Qmp) -> list[Opened]:
    """What QEMU has over its disks because of us."""
    overlays = await _named(qmp, OVERLAY)
    if not overlays:
        return []
    told = await qmp.execute("query-named-block-nodes", {"flat": True})
    nodes = {str(node["node-name"]): node for node in told}
    under, file = await _backings(qmp), await _backings(qmp, "file")

    def path(name: str) -> str:
        while name in file:
            name = file[name]
        return str(nodes[name]["file"])

    found = []
    for over in overlays:
        below = under[over]
        cache = below if below.startswith(CACHE) else ""
        disk = under[cache] if cache else below
        beneath = tuple(Backing(path(one), str(nodes[one]["drv"])) for one in _chain(under, disk))
        held = path(cache) if cache else ""
        found.append(Opened(path(disk), str(nodes[disk]["drv"]), path(over), held, beneath))
    return found


def _chain(under: Mapping[str, str], node: str) -> Iterator[str]:
    """What lies beneath it, from above."""
    while node in under:
        node = under[node]
        yield node


async def _without_caches(qmp: Qmp, overlays: Sequence[str]) -> None:
    """What is in them is in the disks below them."""
    nodes = await _named(qmp, CACHE)
    under = await _backings(qmp) if nodes else {}
    for overlay in overlays:
        cache = under.get(overlay)
        if cache in nodes:
            number = int(overlay.removeprefix(OVERLAY))
            await _reopen(qmp, OVERLAY, number, {**_OVERLAY, "backing": under[cache]})
    for node in nodes:
        await qmp.execute("blockdev-del", {"node-name": node})


async def _reopen(qmp: Qmp, name: str, number: int, options: Mapping[str, Any]) -> None:
    whole = {**options, "node-name": f"{name}{number}", "file": _file(name, number)}
    await qmp.execute("blockdev-reopen", {"options": [whole]})


def _file(name: str, number: int) -> str:
    return f"{name}file-{number}"


async def _backings(qmp: Qmp, kind: str = "backing") -> dict[str, str]:
    graph: dict[str, Any] = await qmp.execute("x-debug-query-block-graph")
    names = {node["id"]: str(node["name"]) for node in graph["nodes"]}
    edges = [edge for edge in graph["edges"] if edge["name"] == kind]
    return {names[edge["parent"]]: names[edge["child"]] for edge in edges}


async def _commit(qmp: Qmp, numbers: Sequence[str]) -> None:
    under = await _backings(qmp)
    for number in numbers:
        committing = {
            "job-id": f"{FOLD}{number}",
            "device": f"{OVERLAY}{number}",
            "base-node": under[f"{OVERLAY}{number}"],  # else it is the last of all that lies beneath
            "on-error": "report",
            "auto-dismiss": False,
        }
        await qmp.execute("block-commit", committing)
    names = [f"{FOLD}{number}" for number in numbers]
    async with AsyncExitStack() as still:
        limits: dict[str, int] = {}
        while not all(job["status"] == "ready" for job in (await _going(qmp, names)).values()):
            if not limits:
                jobs = await _going(qmp, names)
                limits = {name: _PASSES * job["total-progress"] + _SLACK_BYTES for name, job in jobs.items()}
            elif await _follows_no_more(qmp, limits):
                limits = dict.fromkeys(names, 1 << 62)
                await still.enter_async_context(standing_still(qmp))
            await asyncio.sleep(_LOOKS_EVERY_S)
        for name in names:
            await qmp.execute("job-complete", {"id": name})
        await _completed(qmp, names)


async def _follows_no_more(qmp: Qmp, limits: Mapping[str, int]) -> bool:
    jobs = await _going(qmp, list(limits))
    return any(job["current-progress"] > limits[name] for name, job in jobs.items())


async def _completed(qmp: Qmp, names: Sequence[str]) -> None:
    while True:
        jobs = await _told(qmp, names)
        if all(job["status"] == "concluded" for job in jobs.values()):
            break
        await asyncio.sleep(_LOOKS_EVERY_S)
    for name in jobs:
        await qmp.execute("job-dismiss", {"id": name})
    for job in jobs.values():
        if job.get("error"):
            raise not_folded(str(job["error"]))


async def _going(qmp: Qmp, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """All of them, none of which has failed."""
    jobs = await _told(qmp, names)
    for name in names:
        if name not in jobs or jobs[name].get("error") or jobs[name]["status"] in _ENDED:
            raise not_folded(str(jobs.get(name, {}).get("error", "QEMU has ended it")))
    return jobs


async def _told(qmp: Qmp, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {str(job["id"]): job for job in await qmp.execute("query-jobs") if job["id"] in names}


async def _named(qmp: Qmp, prefix: str) -> list[str]:
    nodes = await qmp.execute("query-named-block-nodes", {"flat": True})
    names = (str(node["node-name"]) for node in nodes)
    return [name for name in names if re.fullmatch(f"{prefix}[0-9]+", name)]


async def _roots(qmp: Qmp) -> set[str]:
    """What the guest's devices use."""
    blocks = await qmp.execute("query-block")
    return {str((block.get("inserted") or {}).get("node-name", "")) for block in blocks}


def not_folded(reason: str) -> ToolError:
    return ToolError(
        f"what the guest wrote while its disks moved cannot be written to them: {reason}",
        kind="not-folded-back",
        remedy="see that the storage of its disks can be written and has room; nothing is lost, the VM runs"
        " on with the overlay, and the next start of the daemon or the next move tries again",
    )
