"""Whether a guest would notice that its disks are copied, looked at before (`--storage-mode auto`).

A few MiB are read from places all over its disks, one request after the other, while it goes on. Reads that
come fast, and a guest whose own requests take no longer meanwhile, leave bandwidth to spare: then a shallow,
capped mirror is enough. Else what it writes, and reads often, is outsourced. Pure but for `look`.
Limit: a moment of the guest's life. What the host has cached comes fast, as it will when it is copied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from korora.migration.crossing.disks.unreadable import narrowed
from korora.model.image import NbdExport
from korora.ports.clock import Clock
from korora.ports.image import ImageReader, UnreadableError
from korora.ports.moving_disks import Load, MovingDisks
from korora.protocol.content_tree import CHUNK_BYTES

WATCHES_S: Final = 0.7
PLACES: Final = 24
"""Of one chunk, on all disks together."""
READS_FOR_S: Final = 1.5
IDLE_PER_S: Final = 20.0
"""A guest that asks for less than this has nothing to wait for."""
SLOWER: Final = 1.5
SPARE_BYTES_PER_S: Final = 64 << 20
_SHARE: Final = 2
"""Of what the disks give beside the guest: it may come to ask for more."""
_GENTLY: Final = 0.6
"""Of the same, where the guest writes elsewhere: storage that is never full up lets its requests pass."""


@dataclass(frozen=True, slots=True)
class Headroom:
    """`before` and `meanwhile`: what the guest asked for in `before_s` and `meanwhile_s`."""

    before: Load
    before_s: float
    meanwhile: Load
    meanwhile_s: float
    read_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Choice:
    """`cap_bytes_per_s`: of a mirror; 0: none. `why`: for people."""

    outsource: bool
    cap_bytes_per_s: int
    why: str


def chosen(headroom: Headroom, *, can_outsource: bool, wanted: bool = False) -> Choice:
    """`wanted`: it is to be outsourced in any case. Else never where nothing can take the writes."""
    rate, cap = headroom.read_bytes_per_s, int(headroom.read_bytes_per_s / _SHARE)
    found = f"the disks give {rate / (1 << 20):.0f} MiB/s beside the guest"
    idle = _per_s(headroom.before, headroom.before_s) < IDLE_PER_S
    slower = 1.0 if idle else _seconds(headroom.meanwhile) / max(_seconds(headroom.before), 1e-6)
    ample = rate >= SPARE_BYTES_PER_S and slower <= SLOWER
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


async def look(disks: MovingDisks, images: ImageReader, clock: Clock) -> Headroom:
    """Takes about two seconds. DiskUnreadableError when a disk cannot be read."""
    begun, first = clock.monotonic(), await disks.load()
    await asyncio.sleep(WATCHES_S)
    middle, second = clock.monotonic(), await disks.load()
    done, spent = 0, 0.0
    for name, offsets in _places(disks.sizes).items():
        async with disks.shown(name) as export:
            count, seconds = await asyncio.to_thread(
                _read, name, export, images, clock, offsets, READS_FOR_S - spent
            )
            done, spent = done + count, spent + seconds
    ended, third = clock.monotonic(), await disks.load()
    rate = done / max(spent, 1e-6)
    return Headroom(second - first, middle - begun, third - second, ended - middle, rate)


def _places(sizes: Mapping[str, int]) -> dict[str, list[int]]:
    total = max(sum(sizes.values()), 1)
    return {name: list(_spread(size, max(1, PLACES * size // total))) for name, size in sizes.items()}


def _spread(size: int, count: int) -> Iterator[int]:
    chunks = size // CHUNK_BYTES
    for number in range(min(count, chunks)):
        yield number * chunks // min(count, chunks) * CHUNK_BYTES


def _read(
    disk: str, export: NbdExport, images: ImageReader, clock: Clock, offsets: list[int], limit_s: float
) -> tuple[int, float]:
    """Blocking: bytes, seconds. One after the other: this is how it is copied."""
    begun, done = clock.monotonic(), 0
    with images.open_export(export) as image:
        for offset in offsets:
            if done and clock.monotonic() - begun > limit_s:
                break
            try:
                done += sum(image.each([(offset, CHUNK_BYTES)], len))
            except UnreadableError as error:
                raise narrowed(image, disk, error) from error
    return done, clock.monotonic() - begun


def _per_s(load: Load, seconds: float) -> float:
    return load.requests / max(seconds, 1e-6)


def _seconds(load: Load) -> float:
    """That one request took."""
    return load.waited_s / max(load.requests, 1)
