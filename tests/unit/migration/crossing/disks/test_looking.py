"""What a guest's disks give beside it is seen from a few places, and soon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from korora.agents.io.copying import GENTLE_BYTES
from korora.agents.io.headroom import Headroom
from korora.migration.crossing.disks import looking
from korora.migration.crossing.disks.looking import look
from korora.model.image import NbdExport
from korora.ports.moving_disks import Load

MIB = 1 << 20


class Disks:
    """A clock, and disks that give so much."""

    def __init__(self, mib_per_s: float = 10) -> None:
        self.mib_per_s = mib_per_s
        self.sizes = {"root": 1000 * MIB, "data": 10 * MIB, "tiny": 512}
        self.now = 0.0
        self.reads: list[tuple[str, int, int]] = []

    def monotonic(self) -> float:
        return self.now

    async def load(self) -> Load:
        return Load(int(100 * self.now), self.now / 10)

    @asynccontextmanager
    async def shown(self, name: str) -> AsyncIterator[NbdExport]:
        yield NbdExport(Path("/x"), name)

    @contextmanager
    def open_export(self, export: NbdExport) -> Iterator[Any]:
        def each(ranges: Iterable[tuple[int, int]], work: object) -> Iterator[int]:
            for offset, length in ranges:
                self.now += length / MIB / self.mib_per_s
                self.reads.append((export.name, offset, length))
                yield length

        yield SimpleNamespace(each=each)


def seen_of(disks: Disks, monkeypatch: pytest.MonkeyPatch) -> Headroom:
    """With nobody waiting in truth."""

    async def sleep(seconds: float) -> None:
        disks.now += seconds

    monkeypatch.setattr(looking, "asyncio", SimpleNamespace(sleep=sleep, to_thread=asyncio.to_thread))
    return asyncio.run(look(cast(Any, disks), cast(Any, disks), cast(Any, disks)))


def test_a_few_places_all_over_the_disks_are_read_and_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    disks: Any = Disks()
    seen = seen_of(disks, monkeypatch)
    assert {length for *_, length in disks.reads} == {GENTLE_BYTES}
    assert 15 <= len(disks.reads) * GENTLE_BYTES / MIB <= 18
    assert {name for name, _, _ in disks.reads} == {"root", "data"}
    assert len(set(disks.reads)) == len(disks.reads)
    assert all(
        offset % GENTLE_BYTES == 0 and offset + GENTLE_BYTES <= disks.sizes[name]
        for name, offset, _ in disks.reads
    )
    assert seen.read_bytes_per_s == pytest.approx(10 * MIB)
    assert seen.meanwhile.requests == pytest.approx(100 * seen.meanwhile_s, abs=2)
    assert seen.alone.requests == pytest.approx(100 * seen.alone_s, abs=2)
    assert seen.alone_s == pytest.approx(looking.GLANCES_S + looking.WATCHES_S)


def test_storage_that_is_fast_is_read_in_whole_chunks_and_its_rate_is_of_these(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disks: Any = Disks(mib_per_s=800)
    disks.sizes = {"root": 1000 * MIB}
    seen = seen_of(disks, monkeypatch)
    assert [length for *_, length in disks.reads] == [GENTLE_BYTES] * 8 + [MIB] * 23
    assert seen.read_bytes_per_s == pytest.approx(800 * MIB)
    assert seen.alone_s == pytest.approx(looking.GLANCES_S)


def test_of_a_disk_with_one_place_to_read_it_is_that_ones_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    disks: Any = Disks(mib_per_s=800)
    disks.sizes = {"tiny": MIB + 512}
    seen = seen_of(disks, monkeypatch)
    assert seen.read_bytes_per_s == pytest.approx(800 * MIB)
