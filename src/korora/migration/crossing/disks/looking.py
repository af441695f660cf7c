"""What a guest's disks give beside it, looked at before they are copied (`agents/io/headroom.py` judges it).

A few MiB are read from places all over its disks, one request after the other, while it goes on.
Limit: a moment of the guest's life. What the host has cached comes fast, as it will when it is copied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from korora.agents.io.copying import GENTLE_BYTES, GENTLE_UP_TO
from korora.agents.io.headroom import FAST_BYTES_PER_S, Headroom
from korora.migration.crossing.disks.unreadable import narrowed
from korora.model.image import NbdExport
from korora.ports.clock import Clock
from korora.ports.image import ImageReader, UnreadableError
from korora.ports.moving_disks import Load, MovingDisks
from korora.protocol.content_tree import CHUNK_BYTES

GLANCES_S: Final = 0.2
"""At a guest that nobody disturbs: whether it asks for anything."""
WATCHES_S: Final = 0.5
"""Longer, once it was seen that its storage matters."""
PLACES: Final = 24
"""Of one chunk, on all disks together."""
READS_FOR_S: Final = 1.5


async def look(disks: MovingDisks, images: ImageReader, clock: Clock) -> Headroom:
    """Takes about two seconds, or a few tenths where the disks are fast. DiskUnreadableError when one cannot
    be read."""
    alone, alone_s = await _watched(disks, clock, GLANCES_S)
    begun, before = clock.monotonic(), await disks.load()
    done, spent = 0, 0.0
    for name, offsets in _places(disks.sizes).items():
        async with disks.shown(name) as export:
            count, seconds = await asyncio.to_thread(
                _read, name, export, images, clock, offsets, READS_FOR_S - spent
            )
            done, spent = done + count, spent + seconds
    meanwhile_s, meanwhile = clock.monotonic() - begun, await disks.load() - before
    seen = Headroom(alone, alone_s, meanwhile, meanwhile_s, done / max(spent, 1e-6))
    if seen.storage_bytes_per_s >= FAST_BYTES_PER_S:
        return seen
    more, more_s = await _watched(disks, clock, WATCHES_S)
    return replace(seen, alone=alone + more, alone_s=alone_s + more_s)


async def _watched(disks: MovingDisks, clock: Clock, seconds: float) -> tuple[Load, float]:
    begun, before = clock.monotonic(), await disks.load()
    await asyncio.sleep(seconds)
    return await disks.load() - before, clock.monotonic() - begun


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
    """Blocking: bytes, seconds. One after the other, in pieces as it would be copied at that rate."""
    first = begun = clock.monotonic()
    done, piece, at_first = 0, GENTLE_BYTES, (0, 0.0)
    with images.open_export(export) as image:
        for offset in offsets:
            if done and clock.monotonic() - first > limit_s:
                break
            try:
                for at in range(offset, offset + CHUNK_BYTES, piece):
                    done += sum(image.each([(at, piece)], len))
            except UnreadableError as error:
                raise narrowed(image, disk, error) from error
            if piece < CHUNK_BYTES and done > GENTLE_UP_TO * (clock.monotonic() - begun):
                at_first = done, clock.monotonic() - begun
                begun, done, piece = clock.monotonic(), 0, CHUNK_BYTES
    return (done, clock.monotonic() - begun) if done else at_first
