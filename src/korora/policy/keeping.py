"""Which disks of VMs that left are kept no longer: those that are too old, or more than there is room for."""

from __future__ import annotations

from collections.abc import Iterable

from korora.model.configuration import DAY_S, KeptBounds
from korora.model.kept import KeptDisk


def kept_until(kept: KeptDisk, bounds: KeptBounds) -> int:
    """Unix seconds; 0: for good."""
    return kept.at + bounds.days * DAY_S if bounds.days else 0


def overdue(told: Iterable[KeptDisk], bounds: KeptBounds, now: float) -> list[tuple[KeptDisk, str]]:
    """With the reason, for people. Where there are too many, those that left first go first."""
    found, room = [], bounds.gib << 30
    for kept in sorted(told, key=lambda one: (one.at, one.vm, one.name), reverse=True):
        until = kept_until(kept, bounds)
        room -= kept.used
        if until and now >= until:
            found.append((kept, f"kept for {bounds.days} days"))
        elif bounds.gib and room < 0:
            found.append((kept, f"more than {bounds.gib} GiB are kept"))
    return found[::-1]
