"""How the disks of one move are copied: as it was asked, or as their storage bears it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from korora.migration.crossing import headroom, storage
from korora.migration.crossing.subject import Subject
from korora.migration.setting import Setting
from korora.migration.teller import Teller
from korora.model.plan import MigrationRequest
from korora.model.storage import StorageMode
from korora.ports.moving_disks import MovingDisks

log = structlog.get_logger("korora.migration")


@dataclass(frozen=True, slots=True)
class Manner:
    """`replacement`: a folder for what the guest writes meanwhile; None: it writes to its disks, which are
    read no faster than the cap (0: none). `popular`: what it reads often (Nearing), which comes there, too.
    """

    replacement: Path | None = None
    popular: Mapping[str, Sequence[int]] = field(default_factory=dict)
    cap_bytes_per_s: int = 0


MIRRORED: Final = Manner()


async def manner_of(
    at: Setting, vm: Subject, request: MigrationRequest, disks: MovingDisks, tell: Teller
) -> Manner:
    """What was chosen is told to whoever watches.

    RefusedError(kind="replacement") for a folder that no VM may write to; ToolError for an unreadable disk.
    """
    if vm.live is None or request.storage_mode is StorageMode.MIRROR:
        return MIRRORED
    folder, cap = await storage.replacement(at, vm.definition, request), 0
    outsource = request.storage_mode is StorageMode.OUTSOURCE
    if not outsource:
        room = await asyncio.to_thread(disks.can_outsource, folder)
        choice = headroom.chosen(await headroom.look(disks, at.images, at.clock), can_outsource=room)
        outsource, cap = choice.outsource, choice.cap_bytes_per_s
        log.info(
            "storage mode chosen", vm=request.vm, outsource=outsource, cap_bytes_per_s=cap, why=choice.why
        )
        await tell.note(f"disks: {choice.why}")
    if not outsource:
        return Manner(cap_bytes_per_s=cap)
    await tell.note(f"the guest writes to {folder} while its disks are copied")
    return Manner(folder, await at.popular(request.vm))
