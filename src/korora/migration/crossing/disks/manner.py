"""How the disks of one move are copied: as it was asked, or as their storage bears it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from korora.agents.dataorg.popularity import Popularity
from korora.agents.io import headroom
from korora.errors import RefusedError
from korora.migration.crossing.disks import looking, storage
from korora.migration.crossing.disks.unreadable import gaps_of
from korora.migration.crossing.subject import Subject
from korora.migration.setting import Setting
from korora.migration.teller import Teller
from korora.model.storage import DisksAsked, StorageMode
from korora.ports.moving_disks import MovingDisks

log = structlog.get_logger("korora.migration")


@dataclass(frozen=True, slots=True)
class Manner:
    """`mirrored`: by the hypervisor; else this daemon copies them. Either reads no faster than the cap (0:
    none). `replacement`: a folder for what the guest writes meanwhile, and for what was read, where there is
    room; None: it writes to its disks. `habits`: how it uses them, which says in what order they are copied.
    """

    mirrored: bool = True
    replacement: Path | None = None
    habits: Mapping[str, Popularity] = field(default_factory=dict)
    cap_bytes_per_s: int = 0


MIRRORED: Final = Manner()


async def manner_of(
    at: Setting, vm: Subject, asked: DisksAsked, disks: MovingDisks, tell: Teller, *, shares: bool
) -> Manner:
    """What was chosen is told to whoever watches. `shares`: the destination may have parts of them.

    RefusedError(kind="replacement", "replacement-room") for a folder that will not do, before anything is
    done; ToolError for an unreadable disk.
    """
    if asked.storage_mode is StorageMode.MIRROR:
        return MIRRORED
    if vm.live is None:
        return Manner(mirrored=not shares)
    folder = await storage.replacement(at, vm.definition, asked)
    if asked.storage_mode is StorageMode.OUTSOURCE:
        await asyncio.to_thread(disks.refuse_unfit, folder)
    room = await asyncio.to_thread(_would_do, disks, folder)
    seen = await looking.look(disks, at.images, at.clock)
    choice = headroom.chosen(seen, can_outsource=room, wanted=asked.storage_mode is StorageMode.OUTSOURCE)
    log.info("storage mode chosen", vm=vm.definition.name, choice=choice)
    await tell.note(f"disks: {choice.why}")
    habits = await at.habits(vm.definition.name)
    if not choice.outsource:
        return Manner(mirrored=not shares, habits=habits, cap_bytes_per_s=choice.cap_bytes_per_s)
    await tell.note(f"the guest writes to {folder} while its disks are copied")
    return Manner(mirrored=False, replacement=folder, habits=habits, cap_bytes_per_s=choice.cap_bytes_per_s)


async def refuse_replacement(at: Setting, vm: Subject, asked: DisksAsked) -> None:
    """What a move would refuse of where the guest writes meanwhile, with nothing begun.

    RefusedError: kind="replacement", "replacement-room"; "no-such-disk" and "disks-hidden". As if the
    destination had kept none of the disks.
    """
    names = [disk.name for disk in storage.moving(vm.definition, asked.names)]
    if vm.live is None or not names or asked.storage_mode is StorageMode.MIRROR:
        return
    if not gaps_of(at, vm).keys().isdisjoint(names):  # such disks are copied by the daemon, as they are
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
