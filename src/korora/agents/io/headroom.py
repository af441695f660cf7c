"""Whether a guest would notice that its disks are copied, by what was seen of them (`--storage-mode auto`).

Reads that come fast, and a guest whose own requests take no longer meanwhile, leave bandwidth to spare: then
a shallow copy with a cap is enough. Else what it writes is outsourced, and its disks are read gently. Pure.
Limit: what was seen is a moment of the guest's life.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from korora.ports.moving_disks import Load

IDLE_PER_S: Final = 20.0
"""A guest that asks for less than this has nothing to wait for."""
SLOWER: Final = 1.5
SPARE_BYTES_PER_S: Final = 64 << 20
FAST_BYTES_PER_S: Final = 512 << 20
"""Storage that gives as much is not what a guest waits for, but the CPUs: outsourcing frees none of them."""
_SHARE: Final = 2
"""Of what the disks give beside the guest: it may come to ask for more."""
_GENTLY: Final = 0.6
"""Of the same, where the guest writes elsewhere: storage that is never full up lets its requests pass."""


_STARVED_MOST: Final = 0.75
"""Of the time: several threads may have waited at once."""
_STARVED_SEEN: Final = 1.2


@dataclass(frozen=True, slots=True)
class Headroom:
    """`alone` and `meanwhile`: what the guest asked for in `alone_s`, and in `meanwhile_s`, when its disks
    were read."""

    alone: Load
    alone_s: float
    meanwhile: Load
    meanwhile_s: float
    read_bytes_per_s: float

    @property
    def storage_bytes_per_s(self) -> float:
        """What the disks would have given had a CPU been free whenever one was wanted."""
        starved = min(self.meanwhile.starved_s / max(self.meanwhile_s, 1e-6), _STARVED_MOST)
        return self.read_bytes_per_s / (1 - starved)


@dataclass(frozen=True, slots=True)
class Choice:
    """`cap_bytes_per_s`: of all reading for the copy; 0: none. `why`: for people."""

    outsource: bool
    cap_bytes_per_s: int
    why: str


def chosen(headroom: Headroom, *, can_outsource: bool, wanted: bool = False) -> Choice:
    """`wanted`: it is to be outsourced in any case. Else never where nothing can take the writes."""
    rate, cap = headroom.read_bytes_per_s, int(headroom.read_bytes_per_s / _SHARE)
    found = f"the disks give {rate / (1 << 20):.0f} MiB/s beside the guest"
    if headroom.storage_bytes_per_s > rate * _STARVED_SEEN:
        found += f" ({headroom.storage_bytes_per_s / (1 << 20):.0f} if it had not waited for CPUs)"
    idle = _per_s(headroom.alone, headroom.alone_s) < IDLE_PER_S
    slower = 1.0 if idle else _seconds(headroom.meanwhile) / max(_seconds(headroom.alone), 1e-6)
    ample = headroom.storage_bytes_per_s >= FAST_BYTES_PER_S or (
        rate >= SPARE_BYTES_PER_S and slower <= SLOWER
    )
    gently = 0 if ample else max(int(rate * _GENTLY), 1 << 20)
    if wanted:
        return Choice(outsource=True, cap_bytes_per_s=gently, why=f"outsource, as asked: {found}")
    if idle:
        cap = 0 if rate >= SPARE_BYTES_PER_S else SPARE_BYTES_PER_S
        return Choice(
            outsource=False, cap_bytes_per_s=cap, why=f"mirror: the guest asks little of its disks; {found}"
        )
    found += f", whose requests took {slower:.1f} times as long meanwhile"
    if ample:
        return Choice(
            outsource=False, cap_bytes_per_s=cap, why=f"mirror, capped at {cap >> 20} MiB/s: {found}"
        )
    if can_outsource:
        return Choice(outsource=True, cap_bytes_per_s=gently, why=f"outsource: {found}")
    return Choice(
        outsource=False, cap_bytes_per_s=max(cap, 1 << 20), why=f"mirror, for want of a replacement: {found}"
    )


def _per_s(load: Load, seconds: float) -> float:
    return load.requests / max(seconds, 1e-6)


def _seconds(load: Load) -> float:
    """That one request took."""
    return load.waited_s / max(load.requests, 1)
