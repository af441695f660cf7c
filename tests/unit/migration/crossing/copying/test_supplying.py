"""What a host has comes into the disks that arrive; a store that fails makes misses, and fails no move."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from fakes.contents import FakeContents
from fakes.written_disks import There
from korora.errors import ToolError
from korora.migration.crossing.copying.supplying import Supplying
from korora.model.identity import VmName
from korora.ports.content_store import Pins
from korora.protocol.content_tree import CHUNK_BYTES
from korora.protocol.dedup import have
from korora.protocol.dedup.have import AnySaid, Coming, Held, Put, Settled
from korora.protocol.dedup.names import Grain, name_of

CHUNK = random.Random(9).randbytes(CHUNK_BYTES)


class Here(There):
    """Implements `ports.moving_disks.DiskHere`."""

    left = False

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.content[offset : offset + length])

    def leave(self) -> None:
        self.left = True


class Disks:
    def __init__(self) -> None:
        self.sizes = {"a": 2 * CHUNK_BYTES}
        self.here = Here(bytearray(2 * CHUNK_BYTES))

    async def fill(self, _: str) -> Here:
        return self.here


class Failing(FakeContents):
    @contextmanager
    def pins(self, _: VmName) -> Iterator[Pins]:
        raise ToolError("another process writes it", kind="store-busy")
        yield


def told(contents: FakeContents, *said: AnySaid) -> tuple[list[AnySaid], Here]:
    disks = Disks()

    async def story() -> list[AnySaid]:
        supplying = Supplying(contents, VmName("web"), cast(Any, disks))
        answers = [have.decode(await supplying.answer("a", have.encode(one))) for one in said]
        for _ in range(2):
            await supplying.close()
        return answers

    return asyncio.run(story()), disks.here


def test_what_is_held_is_put_there_and_the_disk_is_left_in_good_order() -> None:
    contents = FakeContents()
    contents.put(CHUNK)
    answers, here = told(contents, Coming(0, Grain.CHUNK, name_of(CHUNK)), Put(0, ((0, 1),), ()))
    assert answers == [Held(0, b"\x80"), Settled(0, ())]
    assert here.content == bytes(CHUNK_BYTES) + CHUNK
    assert here.left


def test_a_store_that_cannot_be_had_any_more_holds_nothing() -> None:
    answers, here = told(Failing(), Coming(0, Grain.CHUNK, name_of(CHUNK)), Put(0, (), ()))
    assert answers == [Held(0, b"\0"), Settled(0, ())]
    assert not any(here.content)
    assert here.left
