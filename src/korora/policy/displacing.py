"""Which content goes when a host's content store is full, and how much of it a disk may take that was learnt.

Promise: what was learnt of one VM's disk displaces neither what the operator added nor what another VM found
lately; of two that may go, the one with less standing goes first, then the one that was used longer ago.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Final

from korora.model.configuration import DAY_S
from korora.model.stored import Kind, Origin

FOUND_FOR_DAYS: Final = 30
"""So long what another VM found stands above what was learnt once."""
_PART: Final = 4


class Standing(IntEnum):
    ONCE = 0
    SEVERAL = 1
    ADDED = 2


def standing(origin: Origin, now: int) -> Standing:
    match origin.kind:
        case Kind.REFERENCE | Kind.KEPT:
            return Standing.ADDED
        case Kind.FOUND if now - origin.used_at < FOUND_FOR_DAYS * DAY_S:
            return Standing.SEVERAL
        case Kind.FOUND | Kind.LEARNT:
            return Standing.ONCE


def learnt_at_most(entries: int) -> int:
    """Of one disk, of a scope that may have so many."""
    return entries // _PART


def goes_first(there: Iterable[Origin], coming: Kind, now: int) -> list[Origin]:
    """Those that may go for it, in that order."""
    ranked = sorted((standing(one, now), one.used_at, one.number, one) for one in there)
    highest = Standing.ONCE if coming is Kind.LEARNT else Standing.ADDED
    return [one for rank, _, _, one in ranked if rank <= highest]
