"""VMs are watched while they run, left alone while they move, and remembered by the next daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fakes.guests_world import FakeMachine, until
from fakes.host_services import FakeServices, configuration_in
from korora.errors import RefusedError, ToolError, UsageError
from korora.model.configuration import Watching
from korora.model.vm import RunState
from korora.ports.clock import SystemClock
from korora.supervision.guests import Guests
from korora.supervision.heat import watching
from korora.supervision.heat.shelf import FILE, read_heat
from korora.supervision.heat.watching import HeatWatch

MIB = 1 << 20
OFTEN = Watching(0.05, 0.02)
Story = Callable[[FakeServices, HeatWatch], Awaitable[None]]


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_S", 0.01)


def tell(folder: Path, story: Story, settings: Watching = OFTEN) -> None:
    async def whole() -> None:
        services = FakeServices(configuration_in(folder))
        watch = HeatWatch(services.guests, SystemClock(), settings)
        await services.guests.run(
            f'name = "web"\nmemory = "64M"\n[[disks]]\nname = "system"\npath = "{folder}/disk.raw"\n'
        )
        await watch.start()
        try:
            async with asyncio.timeout(30):
                await story(services, watch)
        finally:
            await watch.stop()
            await services.guests.close()

    asyncio.run(whole())


async def reads(services: FakeServices, watch: HeatWatch, chunk: int) -> None:
    """The guest reads a chunk until that is known."""
    asked = services.world.of("web").requests.asked

    async def known() -> bool:
        asked.extend([("system", False, chunk * MIB, 4096)] * 5)
        await asyncio.sleep(0.01)
        (disk,) = (await watch.heat("web", 64)).disks or (None,)
        return disk is not None and disk.cell_reads_per_s[chunk] > 0

    while not await known():
        pass


def test_what_a_guest_reads_is_known_and_popular(tmp_path: Path) -> None:
    async def story(services: FakeServices, watch: HeatWatch) -> None:
        await reads(services, watch, 7)
        told = await watch.heat("web", 64)
        assert (told.vm, told.why, told.every_s, told.sample_s) == ("web", "", 0.05, 0.02)
        (disk,) = told.disks
        assert (disk.name, disk.size, disk.hot, disk.hot_share) == ("system", 64 * MIB, ((7, 1),), 1.0)

    tell(tmp_path, story)


def test_the_next_daemon_knows_what_this_one_knew(tmp_path: Path) -> None:
    async def story(services: FakeServices, watch: HeatWatch) -> None:
        await reads(services, watch, 7)
        await watch.stop()
        again = HeatWatch(services.guests, SystemClock(), Watching(0.0, 0.0))
        (disk,) = (await again.heat("web", 64)).disks
        assert disk.hot == ((7, 1),)

    tell(tmp_path, story)


def test_a_vm_that_moves_is_left_alone(tmp_path: Path) -> None:
    async def story(services: FakeServices, watch: HeatWatch) -> None:
        await reads(services, watch, 7)
        requests = services.world.of("web").requests
        services.guests.begin_move("web")
        await asyncio.sleep(0.1)
        samples = requests.samples
        await asyncio.sleep(0.3)
        assert (requests.samples, requests.watched) == (samples, False)
        await services.guests.end_move("web")
        await until(lambda: requests.samples > samples)

    tell(tmp_path, story)


def test_a_vm_that_stands_still_is_not_sampled(tmp_path: Path) -> None:
    async def story(services: FakeServices, watch: HeatWatch) -> None:
        services.world.of("web").state = RunState.PAUSED
        await asyncio.sleep(0.3)
        requests = services.world.of("web").requests
        samples = requests.samples
        await asyncio.sleep(0.2)
        assert requests.samples == samples
        assert (await watch.heat("web", 64)).why == "it stands still"

    tell(tmp_path, story)


def test_a_vm_that_cannot_be_watched_is_put_off_and_told_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Refusing:
        async def sample(self, seconds: float) -> None:
            asked.append(seconds)
            raise RefusedError("no such trace", kind="not-sampled")

    monkeypatch.setattr(FakeMachine, "sampler", Refusing())

    async def story(services: FakeServices, watch: HeatWatch) -> None:
        await asyncio.sleep(0.5)
        assert asked == [0.02]
        told = await watch.heat("web", 64)
        assert (told.why, told.disks) == ("no such trace", ())

    tell(tmp_path, story)


def test_an_adopted_vm_is_not_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeMachine, "sampler", None)

    async def story(services: FakeServices, watch: HeatWatch) -> None:
        await asyncio.sleep(0.2)
        assert "somebody else" in (await watch.heat("web", 64)).why

    tell(tmp_path, story)


def test_a_bug_in_a_sampler_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        async def sample(self, seconds: float) -> None:
            raise ZeroDivisionError

    monkeypatch.setattr(FakeMachine, "sampler", Broken())

    async def story(services: FakeServices, watch: HeatWatch) -> None:
        await asyncio.sleep(0.2)
        assert "error of the daemon" in (await watch.heat("web", 64)).why

    tell(tmp_path, story)


def test_after_stop_nobody_watches(tmp_path: Path) -> None:
    async def story(services: FakeServices, watch: HeatWatch) -> None:
        requests = services.world.of("web").requests
        await until(lambda: requests.watched)
        await watch.stop()
        assert not requests.watched

    tell(tmp_path, story, Watching(0.05, 20.0))


def test_a_vm_that_ended_is_told_from_what_was_kept(tmp_path: Path) -> None:
    async def story(services: FakeServices, watch: HeatWatch) -> None:
        await reads(services, watch, 7)
        await watch.stop()
        await watch.start()
        await services.guests.stop("web", force=True)
        await asyncio.sleep(0.2)
        told = await watch.heat("web", 64)
        assert (told.why, told.disks[0].hot) == ("it does not run", ((7, 1),))

    tell(tmp_path, story)


def test_a_disk_that_was_made_larger_keeps_what_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(services: FakeServices, watch: HeatWatch) -> None:
        await reads(services, watch, 7)
        monkeypatch.setattr("fakes.sampling.SIZE", 128 * MIB)

        samples = services.world.of("web").requests.samples
        await until(lambda: services.world.of("web").requests.samples > samples + 2)
        assert (await watch.heat("web", 64)).disks[0].size == 128 * MIB
        assert (await watch.heat("web", 128)).disks[0].cell_reads_per_s[7] > 0

    tell(tmp_path, story)


def test_where_it_is_turned_off_nobody_is_watched(tmp_path: Path) -> None:
    async def story(services: FakeServices, watch: HeatWatch) -> None:
        await asyncio.sleep(0.2)
        assert services.world.of("web").requests.samples == 0
        assert "turns it off" in (await watch.heat("web", 64)).why

    tell(tmp_path, story, Watching(0.0, 1.0))


def test_a_file_that_cannot_be_written_costs_no_vm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise ToolError("no room", kind="state-directory")

    monkeypatch.setattr(watching, "write_heat", full)
    monkeypatch.setattr(watching, "SAVE_S", 0.0)

    async def story(services: FakeServices, watch: HeatWatch) -> None:
        await reads(services, watch, 7)
        await reads(services, watch, 9)

    tell(tmp_path, story)


def test_it_is_kept_while_the_vm_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "SAVE_S", 0.0)

    async def story(services: FakeServices, watch: HeatWatch) -> None:
        await reads(services, watch, 7)
        folder = services.guests.known_directory("web")
        await until((folder / FILE).exists)
        assert "system" in read_heat(folder)

    tell(tmp_path, story)


def test_an_unknown_vm_is_a_usage_error(tmp_path: Path) -> None:
    async def story(services: FakeServices, watch: HeatWatch) -> None:
        with pytest.raises(UsageError) as refused:
            await watch.heat("nobody", 64)
        assert refused.value.kind == "unknown-vm"

    tell(tmp_path, story)


def test_watching_needs_no_more_of_the_guests_than_they_offer() -> None:
    assert {"staying", "is_live", "known_directory"} <= set(dir(Guests))
