"""What watchers of a migration hear."""

from __future__ import annotations

import asyncio

from korora.migration.teller import Event, Teller
from korora.model.meter import Reading
from korora.model.progress import Phase
from korora.ports.clock import SystemClock


async def _heard(teller: Teller) -> list[Event]:
    return [event async for event in teller.events()]


def test_a_late_watcher_hears_the_outcome() -> None:
    async def story() -> list[Event]:
        teller = Teller(SystemClock())
        await teller.note("early")
        await teller.finish({"outcome": "completed"})
        return await _heard(teller)

    assert asyncio.run(story()) == [{"event": "outcome", "outcome": "completed"}]


def test_every_watcher_hears_everything_in_order() -> None:
    async def story() -> tuple[list[Event], list[Event]]:
        teller = Teller(SystemClock())
        await teller.note("first")
        watchers = [asyncio.create_task(_heard(teller)) for _ in range(2)]
        await asyncio.sleep(0)
        for second in range(20):
            await teller.read(Reading(float(second), second, 20 - second, 0.0, 1))
        await teller.finish({"outcome": "completed"})
        one, two = await asyncio.gather(*watchers)
        return one, two

    one, two = asyncio.run(story())
    assert one == two
    assert [event["event"] for event in one] == ["note"] + ["progress"] * 20 + ["outcome"]


def test_a_watcher_that_sleeps_through_the_transfer_still_hears_the_outcome() -> None:
    async def story() -> list[Event]:
        teller = Teller(SystemClock())
        await teller.note("first")
        watcher = teller.events()
        await anext(watcher)
        for second in range(2000):
            await teller.read(Reading(float(second), second, 2000 - second, 0.0, 1))
        await teller.finish({"outcome": "failed"})
        return [event async for event in watcher]

    heard = asyncio.run(story())
    assert heard[-1]["outcome"] == "failed"
    assert len(heard) <= 256


def test_a_phase_that_fails_is_timed_too() -> None:
    async def story() -> Teller:
        teller = Teller(SystemClock())

        async def fail() -> None:
            raise ValueError("no")

        try:
            await teller(Phase.ATTEST, fail)
        except ValueError:
            return teller
        raise AssertionError("the failure was swallowed")

    assert Phase.ATTEST in asyncio.run(story()).timings_ms
