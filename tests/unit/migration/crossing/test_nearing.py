"""What is read often is read once where it comes nearer, as far as there is room; it holds up no move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from korora.errors import ToolError
from korora.migration.crossing.nearing import Nearing
from korora.model.image import NbdExport

MIB = 1 << 20


class Disks:
    """Of 40 and 2.5 MiB; reads are noted."""

    def __init__(self, room: int) -> None:
        self.sizes = {"root": 40 * MIB, "data": 5 * MIB // 2}
        self.room = room
        self.reads: list[tuple[str, int, int]] = []
        self.open: list[str] = []
        self.most_at_once = 0
        self.while_reading: Callable[[], None] = lambda: None

    def room_nearer(self, name: str) -> int:
        return self.room

    @asynccontextmanager
    async def nearer(self, name: str) -> AsyncIterator[NbdExport]:
        self.open.append(name)
        try:
            yield NbdExport(Path("/x"), name)
        finally:
            self.open.remove(name)

    @contextmanager
    def open_export(self, export: NbdExport) -> Iterator[Any]:
        def each(ranges: Iterable[tuple[int, int]], work: object) -> Iterator[int]:
            ranges = list(ranges)
            self.most_at_once = max(self.most_at_once, len(ranges))
            for offset, length in ranges:
                self.reads.append((export.name, offset, length))
                self.while_reading()
                yield length

        yield SimpleNamespace(each=each)


def brought(disks: Disks, popular: dict[str, list[int]]) -> list[tuple[str, int, int]]:
    async def story() -> None:
        nearing = Nearing(cast(Any, disks), cast(Any, disks))
        nearing.start(popular)
        assert nearing._task is not None
        await nearing._task
        await nearing.stop()

    asyncio.run(story())
    assert not disks.open
    return disks.reads


def test_the_most_read_come_first_in_whole_chunks_but_for_the_end_of_the_disk() -> None:
    disks = Disks(room=3 * MIB)
    told = brought(disks, {"root": [7, 3, 99, 1, 0], "data": [2], "other": [0]})
    assert told == [
        ("root", 7 * MIB, MIB),
        ("root", 3 * MIB, MIB),
        ("root", MIB, MIB),
        ("data", 2 * MIB, MIB // 2),
    ]


def test_no_more_than_one_chunk_is_under_way_for_the_guest_waits_behind_it() -> None:
    disks = Disks(room=40 * MIB)
    assert len(brought(disks, {"root": list(range(40))})) == 40
    assert disks.most_at_once == 1


def test_without_room_or_with_nothing_popular_nothing_is_read() -> None:
    assert brought(Disks(room=MIB - 1), {"root": [0]}) == []
    assert brought(Disks(room=9 * MIB), {}) == []


def test_what_fails_is_no_news() -> None:
    disks = Disks(room=9 * MIB)

    def fail() -> None:
        raise ToolError("an unreadable sector", kind="unreadable")

    disks.while_reading = fail
    assert len(brought(disks, {"root": [1, 2], "data": [0]})) == 1


def test_it_ends_soon_after_it_is_told_to() -> None:
    async def story() -> None:
        disks = Disks(room=1 << 40)
        nearing = Nearing(cast(Any, disks), cast(Any, disks))
        disks.while_reading = nearing._enough.set
        nearing.start({"root": list(range(40))})
        await nearing.stop()
        assert len(disks.reads) <= 1
        await nearing.stop()

    asyncio.run(story())
