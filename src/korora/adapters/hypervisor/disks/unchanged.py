"""Whether the disks that move are still those that began to: the same nodes in QEMU, and as large.

Whoever reaches QEMU's monitor can put a snapshot over a disk, or make it larger. QEMU refuses both while a
job or an export of ours uses the disk, and not in between; a write past the node that has our bitmap would be
missed. Limit: what was done and undone again in between is not told; it leaves its bits in the bitmap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from korora.adapters.hypervisor.qmp import Qmp
from korora.adapters.hypervisor.snapshot.drives import Drive
from korora.adapters.hypervisor.snapshot.graph import path_of
from korora.errors import RefusedError, ToolError
from korora.model.vm import Disk


async def refuse_changed(qmp: Qmp, drives: Iterable[Drive], nodes: Mapping[str, str]) -> None:
    """ToolError(kind="disk-changed"). `nodes`: by disk, what its device is to write to now."""
    roots = {
        path_of(str(block["qdev"])): str(block["inserted"]["node-name"])
        for block in await qmp.execute("query-block")
        if block.get("qdev") and block.get("inserted")
    }
    told = await qmp.execute("query-named-block-nodes", {"flat": True})
    sizes = {str(node["node-name"]): int(node["image"]["virtual-size"]) for node in told}
    for drive in drives:
        node = nodes[drive.name]
        if drive.device and roots.get(drive.device, node) != node:
            raise _changed(drive, "a snapshot was put over it, or another image in its place")
        if sizes.get(node, drive.size) != drive.size:
            raise _changed(drive, f"it had {drive.size} bytes, and has {sizes[node]}")


async def file_of(qmp: Qmp, node: str, defined: Disk | None, size: int) -> Path | None:
    """Where the bytes of a raw disk lie, if QEMU goes through the kernel's cache to them."""
    told = await qmp.execute("query-named-block-nodes", {"flat": True})
    found = next(one for one in told if one["node-name"] == node)
    if defined is None or found["file"] != defined.path:
        return None
    path = Path(defined.path)
    raw = found["drv"] == "raw" and not found["cache"]["direct"] and path.is_file()
    return path if raw and path.stat().st_size == size else None


def not_as_defined(vm: str, names: Iterable[str]) -> RefusedError:
    """Of disks that QEMU has, and has something else for."""
    return RefusedError(
        f"{vm} does not write to the image that its definition names for {', '.join(names)}: a snapshot was"
        " put over it, or another image in its place",
        kind="disk-changed",
        remedy="merge the snapshot into its disk (block-commit, by whoever took it), or start the VM anew on"
        " the image that it is to have; then move it",
    )


def _changed(drive: Drive, how: str) -> ToolError:
    return ToolError(
        f"the disk {drive.name} was changed while it moved: {how}",
        kind="disk-changed",
        remedy="the VM runs on at the source, with its disk as it is now; let nobody use QEMU's monitor for"
        " it while it moves, merge a snapshot into its disk, and move it again",
    )
