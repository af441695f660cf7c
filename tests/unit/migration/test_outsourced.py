"""A move whose guest writes elsewhere meanwhile is cancelled, or a daemon dies, at every message.

Afterwards the VM runs on exactly one host, with its disks, and nothing of it lies anywhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.faults import Fault
from fakes.migration_site import Site
from fakes.moving_disks import RECORD
from korora.migration.crossing.disks import looking
from korora.model.definition import parse_definition
from korora.model.identity import VmName
from korora.model.ownership import Status
from korora.model.storage import ALL, DisksAsked, StorageMode

STORE = VmName("store")
CONTENT = {"root": bytes(range(256)) * 48 + b"end".ljust(512), "data": bytes(4096)}
AT_ONCE = 6
Prepare = Callable[[Site, str], None]


async def ordered(site: Site, elsewhere: Path) -> str:
    """How it ended; "" where the daemon died that would have told."""
    await site.start()
    text = f'name = "{STORE}"\nmemory = "16M"\n'
    for name, content in CONTENT.items():
        path = site["a"].directory / f"{name}.raw"
        path.write_bytes(content)
        text += f'[[disks]]\nname = "{name}"\npath = "{path}"\n'
    site.plan.quiet = True
    await site["a"].do(lambda: site["a"].guests.run(text))
    site.plan.quiet = False
    how = DisksAsked((ALL,), storage_mode=StorageMode.OUTSOURCE, replacement=str(elsewhere))
    envelope = site.request("a", "b", vm=STORE, disks=how)
    migrations = site["a"].migrations
    begun = await site["a"].do(lambda: migrations.begin(envelope, None))
    outcome = await site.follow("a", begun)
    await site.recover()
    return str(outcome.get("outcome", ""))


def whole_at(site: Site, elsewhere: Path) -> str:
    """The one host that runs it, with its disks."""
    assert not site.world.violations, site.world.violations
    standings = {
        name: host.disk.vms[STORE].ownership for name, host in site.hosts.items() if STORE in host.disk.vms
    }
    owners = [name for name, standing in standings.items() if standing is Status.OWNER]
    assert len(owners) == 1, standings
    owner = owners[0]
    assert site.world.running(STORE) == [owner]
    disks = parse_definition(site[owner].disk.vms[STORE].definition).disks
    assert {disk.name: Path(disk.path).read_bytes() for disk in disks} == CONTENT
    other = site["b" if owner == "a" else "a"]
    assert not (other.directory / "vms" / STORE).exists()
    assert owner == "a" or not list(other.directory.glob("*.raw"))
    assert not list(elsewhere.iterdir())
    assert not (site[owner].directory / "vms" / STORE / RECORD).exists()
    return owner


def crash(site: Site, point: str) -> None:
    site.plan.faults[point] = Fault.CRASH


def cancel(site: Site, point: str) -> None:
    async def cancelled() -> None:
        (only,) = site["a"].migrations.list()
        await site["a"].migrations.cancel(only["id"])

    site.plan.deeds[point] = lambda: site.loop.call_soon_threadsafe(lambda: site.spawn(cancelled()))


@pytest.mark.parametrize("prepare", [crash, cancel])
def test_at_every_message_the_vm_is_left_whole_on_one_host_and_nothing_is_left_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepare: Prepare
) -> None:
    monkeypatch.setattr(looking, "WATCHES_S", 0.01)
    monkeypatch.setattr(looking, "READS_FOR_S", 0.01)
    free = asyncio.Semaphore(AT_ONCE)

    async def told(name: str, point: str = "") -> tuple[list[str], str]:
        """The messages that passed, and what is wrong."""
        elsewhere = tmp_path / f"{name}-elsewhere"
        elsewhere.mkdir()
        async with free:
            site = Site(tmp_path / name)
            try:
                if point:
                    site.plan.deeds.clear()
                    prepare(site, point)
                ended = await ordered(site, elsewhere)
                owner = whole_at(site, elsewhere)
                assert ended != "completed" or owner == "b"
                assert ended != "cancelled" or owner == "a"
                return [one for one in site.plan.passed if " " in one], ""
            except AssertionError as error:
                return [], f"{point}: {str(error)[:600]}"
            finally:
                await site.stop()

    async def all_of_them() -> list[str]:
        points, wrong = await told("first")
        assert points, wrong
        if prepare is cancel:
            points = [point for point in points if point.startswith("a:")]
        stories = await asyncio.gather(*(told(str(at), point) for at, point in enumerate(points)))
        return [wrong for _, wrong in stories if wrong]

    assert asyncio.run(all_of_them()) == []
