"""What a guest wrote past its disks comes into them: with its QEMU, or without it where that is gone.

Promise: a record that is lost or cannot be read is made anew of what QEMU has open, before that is closed. It
may be repeated.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from korora.adapters.hypervisor.disks import leftover, outsourcing, overlay
from korora.adapters.hypervisor.disks.overlay import Outsourced
from korora.adapters.hypervisor.qmp import Qmp
from korora.errors import ToolError


async def fold_back(qmp: Qmp, directory: Path) -> None:
    """As `leftover.clear`; the disks hold everything, durably, and no overlay of the VM is left.

    With QEMU gone it is folded back without it, and the ToolError is raised all the same.
    """
    try:
        await _recall(qmp, directory)
        await leftover.clear(qmp)
    except ToolError as error:
        if error.kind == "qmp-gone":
            await overlay.fold_back_at_rest(directory)
        raise
    await asyncio.to_thread(overlay.forget, directory)


async def _recall(qmp: Qmp, directory: Path) -> None:
    try:
        if overlay.outsourced(directory):
            return
    except ToolError:
        pass
    opened = await outsourcing.opened(qmp)
    entries = [
        Outsourced(
            Path(one.original).name,
            *(one.original, one.format, one.overlay, one.cache),
            used=True,
            backing=one.backing,
        )
        for one in opened
    ]
    if not entries and not overlay.is_noted(directory):
        return
    try:
        await asyncio.to_thread(overlay.note, directory, entries)
    except OSError as error:
        raise overlay.not_noted(directory, error) from error
