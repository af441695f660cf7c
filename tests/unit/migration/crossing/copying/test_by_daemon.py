"""A frozen disk is copied whole, whether or not what is read of it can be brought nearer to its guest."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from fakes.image import MemoryImage
from fakes.written_disks import There
from korora.agents.io.copying import Pace
from korora.migration.crossing.copying.by_daemon import ByDaemon
from korora.migration.crossing.disks.unreadable import DiskUnreadableError
from korora.model.image import NbdExport
from korora.ports.clock import SystemClock
from korora.ports.image import OpenImage, Range, UnreadableError
from korora.protocol.content_tree import CHUNK_BYTES

T = TypeVar("T")
CONTENT = random.Random(12).randbytes(5 * CHUNK_BYTES + 4096)
FROZEN, NEARER = Path("frozen"), Path("nearer")


class Failing(MemoryImage):
    """Its errors say where."""

    def each(self, ranges: Iterable[Range], work: Callable[[memoryview], T]) -> Iterator[T]:
        for wanted in ranges:
            if any(wanted[0] <= one < sum(wanted) for one in self.broken):
                raise UnreadableError("No space left on device", wanted)
            yield from super().each([wanted], work)


class Frozen:
    """Implements of `ports.moving_disks.MovingDisks` and `ports.image.ImageReader` what is asked here.

    `full_from`: no byte from there on can be brought nearer. `broken`: cannot be read at all.
    """

    def __init__(self, full_from: int, broken: Collection[int] = ()) -> None:
        self.sizes = {"a": len(CONTENT)}
        self.used_by: set[int] = set()
        full = range(full_from, len(CONTENT), CHUNK_BYTES // 2)
        self.images = {
            FROZEN: Failing(CONTENT, broken=broken),
            NEARER: Failing(CONTENT, broken={*broken, *full}),
        }

    def room_nearer(self, _: str) -> int:
        return 3 * CHUNK_BYTES

    @asynccontextmanager
    async def frozen(self, _: str) -> AsyncIterator[NbdExport]:
        yield NbdExport(FROZEN)

    @asynccontextmanager
    async def nearer(self, _: str) -> AsyncIterator[NbdExport]:
        yield NbdExport(NEARER)

    @contextmanager
    def open_export(self, export: NbdExport) -> Iterator[OpenImage]:
        used_by = {threading.get_ident()}
        try:
            yield self.images[export.socket]
        finally:
            self.used_by |= used_by | {threading.get_ident()}


def copied(disks: Frozen, bytes_per_s: int = 0) -> tuple[ByDaemon, There]:
    there = There(bytearray(len(CONTENT)))
    pace = Pace(bytes_per_s, SystemClock())
    made = ByDaemon("a", cast(Any, disks), there, cast(Any, disks), pace)
    asyncio.run(made.copy_frozen())
    return made, there


@pytest.mark.parametrize("pace", [0, 1 << 40])
@pytest.mark.parametrize("full_from", [len(CONTENT), 0, 2 * CHUNK_BYTES])
def test_where_nothing_can_be_brought_nearer_the_disk_itself_is_read(full_from: int, pace: int) -> None:
    made, there = copied(Frozen(full_from), pace)
    assert there.content == CONTENT
    assert made.done == len(CONTENT)


@pytest.mark.parametrize("broken", [[], [7]])
def test_no_disk_is_opened_or_closed_where_it_would_hold_up_the_daemon(broken: list[int]) -> None:
    disks = Frozen(0, broken)
    with suppress(DiskUnreadableError):
        copied(disks)
    assert disks.used_by
    assert threading.get_ident() not in disks.used_by


def test_what_cannot_be_read_is_told_with_its_block() -> None:
    with pytest.raises(DiskUnreadableError) as refused:
        copied(Frozen(0, [2 * CHUNK_BYTES + 5 * 4096 + 7]))
    assert (refused.value.offset, refused.value.length) == (2 * CHUNK_BYTES + 5 * 4096, 4096)
