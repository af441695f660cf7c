"""A disk that is copied is measured meanwhile, and not beyond what the copy has read of it."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from fakes.image import MemoryImage
from fakes.written_disks import WrittenDisks
from korora.errors import ToolError
from korora.migration.crossing.disks import measuring as measuring_module
from korora.migration.crossing.disks.behind import Behind, Paced
from korora.migration.crossing.disks.measuring import Measuring
from korora.model.image import NbdExport
from korora.ports.image import OpenImage, Range
from korora.protocol.content_tree import CHUNK_BYTES

SIZE = 6 * CHUNK_BYTES + 512
NOISE = random.Random(5).randbytes(SIZE)
WITHIN_S = 60.0


class Watched(WrittenDisks):
    """Notes how far each disk was read. `cached`: whether its bytes lie in a file of this host."""

    def __init__(self, *, cached: bool) -> None:
        super().__init__({"root": NOISE})
        self._cached = cached
        self.looked = asyncio.Event()
        self.read = 0
        self.shown_now = 0

    def has_shown(self, count: int) -> bool:
        return self.shown_now > 0 and self.read >= count

    @asynccontextmanager
    async def written(self, name: str) -> AsyncIterator[NbdExport]:
        async with super().written(name):
            self.shown_now += 1
            self.looked.set()
            try:
                yield NbdExport(Path(name), file=Path(name) if self._cached else None)
            finally:
                self.shown_now -= 1

    @contextmanager
    def open_export(self, export: NbdExport) -> Iterator[OpenImage]:
        with super().open_export(export) as image:
            yield Noted(image, self)


class Noted(Paced):
    def __init__(self, image: OpenImage, disks: Watched) -> None:
        super().__init__(image, lambda end: setattr(disks, "read", max(disks.read, end)))


def measuring(disks: WrittenDisks, monkeypatch: pytest.MonkeyPatch) -> Measuring:
    monkeypatch.setattr(measuring_module, "EVERY_S", 0.01)
    return Measuring(cast(Any, disks), cast(Any, disks))


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not holds():  # noqa: ASYNC110 (what is waited for is another thread's)
            await asyncio.sleep(0.001)


def test_who_waits_goes_on_once_the_copy_has_read_as_much() -> None:
    behind, went_on = Behind(), threading.Event()

    def wait() -> None:
        behind.wait_for("root", 10)
        went_on.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    behind.reached({"root": 9, "other": 10})
    assert not went_on.wait(0.05)
    behind.reached({"root": 10})
    waiting.join(WITHIN_S)
    assert went_on.is_set()


def test_nobody_waits_once_all_was_copied() -> None:
    behind = Behind()
    behind.copied()
    behind.wait_for("root", 1 << 60)
    behind.wait_for("root", None)


@pytest.mark.parametrize("copied", [False, True])
def test_once_it_is_stopped_nobody_goes_on(copied: bool) -> None:
    behind = Behind()
    behind.reached({"root": 10})
    if copied:
        behind.copied()
    behind.stop()
    with pytest.raises(ToolError) as told:
        behind.wait_for("root", 5)
    assert told.value.kind == "aborted"


def test_a_disk_is_read_as_far_as_it_was_copied_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        disks, behind = Watched(cached=True), Behind()
        here = measuring(disks, monkeypatch)
        here.keep(behind)
        for far in (0, CHUNK_BYTES, 3 * CHUNK_BYTES + 5, 4 * CHUNK_BYTES):
            behind.reached({"root": far})
            whole = far // CHUNK_BYTES * CHUNK_BYTES
            await until(partial(disks.has_shown, whole))
            await asyncio.sleep(0.02)
            assert disks.read <= far
        disks.write("root", 2 * CHUNK_BYTES, b"new")
        disks.write("root", SIZE - 3, b"new")
        behind.copied()
        await here.settle()
        expected = measuring(WrittenDisks({"root": bytes(disks.content["root"])}), monkeypatch)
        assert await here.contents() == await expected.contents()

    asyncio.run(play())


def test_what_lies_in_no_file_is_read_once_all_was_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        disks, behind = Watched(cached=False), Behind()
        here = measuring(disks, monkeypatch)
        here.keep(behind)
        behind.reached({"root": SIZE})
        await asyncio.wait_for(disks.looked.wait(), WITHIN_S)
        await asyncio.sleep(0.05)
        assert disks.read == 0
        behind.copied()
        await here.settle()
        assert disks.read == SIZE

    asyncio.run(play())


def test_a_copy_that_is_broken_off_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        disks = Watched(cached=True)
        here = measuring(disks, monkeypatch)
        here.keep(Behind())
        await asyncio.wait_for(disks.looked.wait(), WITHIN_S)
        await asyncio.wait_for(here.stop(), WITHIN_S)
        assert disks.shown_now == 0

    asyncio.run(play())


class Broken(Watched):
    """It has a chunk that cannot be read."""

    @contextmanager
    def open_export(self, _: NbdExport) -> Iterator[OpenImage]:
        yield MemoryImage(NOISE, broken=[CHUNK_BYTES + 7])


def test_what_cannot_be_read_is_told_while_the_copy_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        disks, behind = Broken(cached=True), Behind()
        here = measuring(disks, monkeypatch)
        here.keep(behind)
        here.refuse_failed()
        behind.reached({"root": SIZE})
        with pytest.raises(ToolError, match="cannot be read"):
            await until(here.refuse_failed)
        await here.stop()

    asyncio.run(play())


def test_what_is_paced_is_the_same_disk() -> None:
    asked: list[int] = []
    image: Paced = Paced(MemoryImage(NOISE, marked=[(0, 5)]), asked.append)
    ranges: Iterable[Range] = [(0, 8), (16, 4)]
    assert list(image.each(ranges, bytes)) == [NOISE[:8], NOISE[16:20]]
    assert asked == [8, 20]
    assert (image.size, list(image.written())) == (SIZE, [(0, 5)])
    assert [one.length for one in image.extents()] == [SIZE]
