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
from korora.errors import IntegrityError, KororaError, PeerError, ToolError
from korora.migration.crossing.disks import outgoing
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
SILENT = PeerError("the other host is silent", kind="stalled")
CHANGED = IntegrityError("a frame was changed", kind="changed-frame")
STOPPED = ToolError("the relay was stopped", kind="aborted")
BROKE = ToolError("a connection broke", kind="mirror-failed")


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

    def __init__(self, ends: KororaError = SILENT) -> None:
        self.lost = asyncio.Event()
        self._ends = ends

    def start(self) -> None: ...

    async def finished(self) -> Any:
        await self.lost.wait()
        raise self._ends

    def abort(self, _: str) -> None: ...


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


class Failing(Disks):
    """What the guest writes does not follow."""

    def __init__(self, number: int) -> None:
        self.sizes = dict.fromkeys((f"disk{one}" for one in range(number)), CHUNK_BYTES)

    async def mirror(self, *_: Any) -> None: ...

    async def copied(self) -> Copied:
        raise BROKE


def why_of(*relays: Relay) -> KororaError:
    async def story() -> KororaError:
        disks = cast(Any, Failing(len(relays)))
        named = {f"disk{number}": (cast(Any, relay), Path("s")) for number, relay in enumerate(relays)}
        async with asyncio.timeout(WITHIN_S):
            with pytest.raises(KororaError) as told:
                await DisksOut(disks, named, disks, SystemClock()).copy(Manner(), quiet)
        assert not [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]
        return told.value

    return asyncio.run(story())


def ended(reason: KororaError) -> Relay:
    relay = Relay(reason)
    relay.lost.set()
    return relay


def test_the_reason_of_the_last_disks_stream_waits_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "_REASON_S", 10 * WITHIN_S)
    assert why_of(*(Relay() for _ in range(20)), ended(SILENT)) is SILENT


def test_streams_that_have_no_reason_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "_REASON_S", WITHIN_S / 15)
    assert why_of(*(Relay() for _ in range(20))) is BROKE
    assert why_of(ended(STOPPED), ended(STOPPED)) is BROKE


def test_what_was_changed_on_the_way_is_told_before_what_broke_of_it() -> None:
    assert why_of(ended(SILENT), ended(STOPPED), ended(CHANGED), ended(SILENT)) is CHANGED


class Changed(Disks):
    """A copy without an end, of a disk that somebody changes."""

    async def mirror(self, *_: Any) -> None: ...

    async def copied(self) -> Copied:
        return Copied(0, 1, ready=False, read={"a": 0})

    @asynccontextmanager
    async def written(self, _: str) -> AsyncIterator[NbdExport]:
        raise ToolError("a snapshot was put over it", kind="disk-changed")
        yield


def test_what_is_found_while_a_disk_is_copied_ends_its_copying() -> None:
    async def story() -> None:
        disks = cast(Any, Changed())
        out = DisksOut(disks, {"a": (cast(Any, Relay()), Path("a.sock"))}, disks, SystemClock())
        async with asyncio.timeout(WITHIN_S):
            with pytest.raises(ToolError) as told:
                await out.copy(Manner(), quiet)
        assert told.value.kind == "disk-changed"

    asyncio.run(story())
