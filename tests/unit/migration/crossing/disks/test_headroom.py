"""A guest that would notice is outsourced; where bandwidth is to spare, its disks are mirrored gently."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from korora.migration.crossing.disks import headroom
from korora.migration.crossing.disks.headroom import Headroom, chosen, look
from korora.model.image import NbdExport
from korora.ports.moving_disks import Load

MIB = 1 << 20
FAST, SLOW = 400.0 * MIB, 30.0 * MIB


def found(requests: int, before_ms: float, meanwhile_ms: float, rate: float) -> Headroom:
    before = Load(requests, requests * before_ms / 1000)
    return Headroom(before, 1.0, Load(requests, requests * meanwhile_ms / 1000), 1.0, rate)


@pytest.mark.parametrize(
    ("seen", "outsource", "cap"),
    [
        (found(1000, 4, 4.5, FAST), False, 200 * MIB),
        (found(1000, 4, 8, FAST), True, 240 * MIB),
        (found(1000, 4, 4, SLOW), True, 18 * MIB),
        (found(5, 4, 40, SLOW), False, 64 * MIB),
        (found(0, 0, 0, FAST), False, 0),
    ],
)
def test_the_choice_follows_what_was_seen(seen: Headroom, outsource: bool, cap: int) -> None:
    choice = chosen(seen, can_outsource=True)
    assert (choice.outsource, choice.cap_bytes_per_s) == (outsource, cap)
    assert "MiB/s beside the guest" in choice.why


def test_without_a_replacement_it_is_mirrored_as_gently_as_can_be() -> None:
    choice = chosen(found(1000, 4, 40, SLOW), can_outsource=False)
    assert (choice.outsource, choice.cap_bytes_per_s) == (False, 15 * MIB)
    assert "want of a replacement" in choice.why


@pytest.mark.parametrize(
    ("seen", "cap"),
    [(found(1000, 4, 8, FAST), 240 * MIB), (found(1000, 4, 4, FAST), 0), (found(0, 0, 0, FAST), 0)],
)
def test_what_is_asked_for_is_done_and_gently_where_a_guest_would_notice(seen: Headroom, cap: int) -> None:
    choice = chosen(seen, can_outsource=False, wanted=True)
    assert (choice.outsource, choice.cap_bytes_per_s) == (True, cap)


class Disks:
    """A clock, and disks that give one chunk in a tenth of a second."""

    def __init__(self) -> None:
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
                self.now += 0.1
                self.reads.append((export.name, offset, length))
                yield length

        yield SimpleNamespace(each=each)


def test_a_few_places_all_over_the_disks_are_read_and_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headroom, "WATCHES_S", 0)
    disks: Any = Disks()
    seen = asyncio.run(look(disks, cast(Any, disks), cast(Any, disks)))
    assert 15 <= len(disks.reads) <= 18
    assert {name for name, _, _ in disks.reads} == {"root", "data"}
    assert len(set(disks.reads)) == len(disks.reads)
    assert all(offset % MIB == 0 and offset + MIB <= disks.sizes[name] for name, offset, _ in disks.reads)
    assert seen.read_bytes_per_s == pytest.approx(10 * MIB)
    assert seen.meanwhile.requests == pytest.approx(100 * disks.now, abs=2)
