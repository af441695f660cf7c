"""Disks on their way out: a host that falls silent is noticed, whatever is being waited for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from fakes.image import MemoryImage
from fakes.written_disks import There
from korora.errors import PeerError
from korora.migration.crossing.disks.manner import Manner
from korora.migration.crossing.disks.outgoing import DisksOut
from korora.model.image import NbdExport
from korora.ports.clock import SystemClock
from korora.ports.image import OpenImage
from korora.ports.moving_disks import Copied
from korora.protocol.content_tree import CHUNK_BYTES
from korora.protocol.dedup.have import AnySaid

CONTENT = random.Random(13).randbytes(CHUNK_BYTES)
WITHIN_S = 30.0


class Disks:
    """Implements of `ports.moving_disks.MovingDisks` and `ports.image.ImageReader` what is asked here."""

    sizes = {"a": len(CONTENT)}  # noqa: RUF012

    async def reach(self, _: str, __: Path) -> There:
        return There(bytearray(len(CONTENT)))

    async def copied(self) -> Copied:
        return Copied(0, 0, ready=True)

    @asynccontextmanager
    async def written(self, _: str) -> AsyncIterator[NbdExport]:
        yield NbdExport(Path("a"))

    @contextmanager
    def open_export(self, _: NbdExport) -> Iterator[OpenImage]:
        yield MemoryImage(CONTENT)


class Relay:
    """It ends with an error once it is told to."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def start(self) -> None: ...

    async def finished(self) -> Any:
        await self.lost.wait()
        raise PeerError("the other host is silent", kind="stalled")


async def quiet(_: Any) -> None: ...


def test_who_waits_for_an_answer_of_a_host_that_fell_silent_is_told() -> None:
    async def story() -> None:
        relay, disks = Relay(), cast(Any, Disks())
        out = DisksOut(disks, {"a": (cast(Any, relay), Path("a.sock"))}, disks, SystemClock())

        async def ask(_: str, __: AnySaid) -> AnySaid:
            relay.lost.set()
            await asyncio.Event().wait()
            raise AssertionError

        async with asyncio.timeout(WITHIN_S):
            with pytest.raises(PeerError) as told:
                await out.copy(Manner(mirrored=False), quiet, ask=ask)
        assert told.value.kind == "stalled"

    asyncio.run(story())
