"""What is followed is the same there in the end, whenever the guest wrote."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.written_disks import There, WrittenDisks
from korora.agents.dataorg import comparing
from korora.errors import ToolError
from korora.migration.crossing.disks import measuring as measuring_module
from korora.migration.crossing.disks.following import merged
from korora.migration.crossing.disks.measuring import Measuring
from korora.ports.moving_disks import CopyFailedError
from korora.protocol.content_tree import CHUNK_BYTES, chunks_of

SIZE = 3 * CHUNK_BYTES + 512
NOISE = random.Random(3).randbytes(SIZE)


def measuring(disks: WrittenDisks) -> Measuring:
    return Measuring(cast(Any, disks), cast(Any, disks))


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12))))
def test_merged_ranges_are_the_same_bytes_in_order_and_none_twice(ranges: list[tuple[int, int]]) -> None:
    told = merged(ranges)
    held = [byte for offset, length in told for byte in range(offset, offset + length)]
    assert held == sorted({byte for offset, length in ranges for byte in range(offset, offset + length)})
    assert all(sum(one) < other[0] for one, other in pairwise(told))


@given(
    st.lists(st.tuples(st.integers(0, SIZE - 8), st.binary(min_size=1, max_size=8)), max_size=12), st.data()
)
@settings(max_examples=60, deadline=None)
def test_what_a_guest_writes_while_two_contents_are_compared_follows(
    writes: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    """Each look at the disk takes a bitmap with it: what it told must not be lost until somebody follows."""
    disks = WrittenDisks({"root": NOISE})
    there = There(bytearray(NOISE[:CHUNK_BYTES] + bytes(SIZE - CHUNK_BYTES)))

    def guest() -> None:
        for _ in range(min(len(writes), data.draw(st.integers(0, 3)))):
            disks.write("root", *writes.pop())

    async def play() -> None:
        here = measuring(disks)
        disks.before_looking = guest
        ours = await here.leaves("root", followed=True)
        theirs = WrittenDisks({"root": bytes(there.content)})
        kept = measuring(theirs)
        chunks = comparing.differing(ours, await kept.leaves("root"))
        mine, other = await here.grains("root", chunks), await kept.grains("root", chunks)
        ranges = [
            one
            for chunk, a, b in zip(chunks, mine, other, strict=True)
            for one in comparing.blocks(comparing.span(chunk, SIZE), a, b)
        ]
        await here.follow("root", ranges, there)
        await here.settle()
        disks.before_looking = lambda: None
        (content,) = await here.contents()
        assert bytes(there.content) == bytes(disks.content["root"])
        arrived = measuring(WrittenDisks({"root": bytes(there.content)}))
        assert (content,) == await arrived.contents()

    asyncio.run(play())


class Full(There):
    """QEMU answers so once its storage is full, at the latest to a flush."""

    def put(self, offset: int, data: bytes) -> None:
        raise ToolError("no space left", kind="image-full", remedy="make room where the image lies")


def test_a_destination_that_takes_nothing_more_of_what_is_followed_is_told_by_the_disk() -> None:
    disks = WrittenDisks({"root": NOISE})

    async def play() -> None:
        here = measuring(disks)
        await here.leaves("root", followed=True)
        await here.follow("root", [], There(bytearray(NOISE)))
        here._there["root"] = Full(bytearray(NOISE))
        disks.write("root", 5, b"new")
        for _ in range(2):
            disks.write("root", 5, b"new")
            with pytest.raises(CopyFailedError, match="no space left") as failed:
                await here.settle()
            assert failed.value.disk == "root"
            assert "room for it at the destination" in failed.value.remedy

    asyncio.run(play())


def test_a_disk_that_is_only_measured_owes_nothing() -> None:
    disks = WrittenDisks({"root": NOISE})

    async def play() -> None:
        here = measuring(disks)
        assert len(await here.leaves("root")) == 32 * chunks_of(SIZE)
        disks.write("root", 5, b"new")
        await here.settle()
        assert here._owed == {}

    asyncio.run(play())


def test_what_comes_while_it_is_measured_is_in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at a destination: chunks come, in whatever order, before somebody says that these are all."""
    monkeypatch.setattr(measuring_module, "EVERY_S", 0.01)
    disks, came = WrittenDisks({"root": bytes(SIZE)}), asyncio.Event()
    coming = [(at, NOISE[at : at + CHUNK_BYTES // 2]) for at in range(0, SIZE, CHUNK_BYTES // 2)]
    random.Random(4).shuffle(coming)

    def more() -> None:
        if coming:
            disks.write("root", *coming.pop())
        else:
            came.set()

    async def play() -> None:
        here = measuring(disks)
        disks.before_looking = more
        here.keep()
        async with asyncio.timeout(60):
            await came.wait()
        await here.settle()
        assert bytes(disks.content["root"]) == NOISE
        assert await here.contents() == await measuring(WrittenDisks({"root": NOISE})).contents()

    asyncio.run(play())


def test_what_fails_while_more_comes_is_told_when_all_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring_module, "EVERY_S", 0.01)
    disks, looked = WrittenDisks({"root": NOISE}), asyncio.Event()

    def fail() -> None:
        looked.set()
        raise ToolError("QEMU is gone", kind="vm-process-gone")

    async def play() -> None:
        here = measuring(disks)
        disks.before_looking = fail
        here.keep()
        async with asyncio.timeout(60):
            await looked.wait()
        with pytest.raises(ToolError, match="QEMU is gone"):
            await here.settle()
        await here.stop()

    asyncio.run(play())
