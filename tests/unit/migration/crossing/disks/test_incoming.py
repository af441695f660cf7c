"""Disks that arrive: what was changed on the way of one is told while the others go on."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from korora.errors import IntegrityError, PeerError, ToolError
from korora.migration.crossing.disks.incoming import DisksIn

WITHIN_S = 10.0


class Relay:
    def __init__(self, ends: Exception | None = None) -> None:
        self._ends = ends

    async def finished(self) -> Any:
        if self._ends is None:
            await asyncio.Event().wait()
        raise cast(Exception, self._ends)


def broken(*relays: Relay) -> None:
    class Disks:
        sizes: dict[str, int] = {}  # noqa: RUF012

    async def story() -> None:
        disks = cast(Any, Disks())
        async with asyncio.timeout(WITHIN_S):
            await DisksIn(disks, cast(Any, relays), disks).broken()

    asyncio.run(story())


def test_what_was_changed_on_the_way_of_any_disk_is_told_at_once() -> None:
    left = Relay(ToolError("it left", kind="aborted"))
    with pytest.raises(IntegrityError):
        broken(Relay(), left, Relay(IntegrityError("a frame was changed", kind="changed-frame")))


def test_a_source_that_fell_silent_is_not_waited_for() -> None:
    with pytest.raises(PeerError) as told:
        broken(Relay(PeerError("the other host was silent", kind="stalled")))
    assert told.value.kind == "stalled"


def test_a_source_that_left_is_to_say_why() -> None:
    async def story() -> None:
        disks = cast(Any, type("Disks", (), {"sizes": {}}))
        relay = cast(Any, Relay(PeerError("the other host ended early", kind="ended-early")))
        waiting = asyncio.create_task(DisksIn(disks, [relay], disks).broken())
        assert not (await asyncio.wait([waiting], timeout=0.2))[0]
        waiting.cancel()

    asyncio.run(story())
