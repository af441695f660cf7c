"""How the disks of one move are copied: as it was asked, or as their storage bears it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from korora.errors import RefusedError
from korora.migration.crossing import headroom, storage
from korora.migration.crossing.subject import Subject
from korora.migration.crossing.unreadable import gaps_of
from korora.migration.setting import Setting
from korora.migration.teller import Teller
from korora.model.plan import Inquiry, MigrationRequest
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
        room = await asyncio.to_thread(_would_do, disks, folder)
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


async def refuse_replacement(at: Setting, vm: Subject, asked: Inquiry) -> None:
    """What a move would refuse of where the guest writes meanwhile, with nothing begun.

    RefusedError: kind="replacement", "replacement-room"; "no-such-disk" and "disks-hidden". As if the
    destination had kept none of the disks.
    """
    names = [disk.name for disk in storage.moving(vm.definition, asked.disks)]
    if vm.live is None or not names or asked.storage_mode is StorageMode.MIRROR:
        return
    if not gaps_of(at, vm).keys().isdisjoint(names):  # such disks are read by the daemon, and mirrored
        return
    folder = await storage.replacement(at, vm.definition, asked)
    if asked.storage_mode is StorageMode.OUTSOURCE:
        disks = await vm.live.machine.moving_disks(names)
        await asyncio.to_thread(disks.refuse_unfit, folder)


def _would_do(disks: MovingDisks, folder: Path) -> bool:
    try:
        disks.refuse_unfit(folder)
    except RefusedError:
        return False
    return True
