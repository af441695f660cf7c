"""Guests on real QEMU: started, found again by another daemon, adopted, and noticed when they die."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from fakes.guests_world import FakeVtpmAgent, World, until
from fakes.journal import Disk, MemoryJournal
from korora.adapters.hypervisor.qemu import Qemu
from korora.model.vm import RunState
from korora.supervision.guests import Guests

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]

TINY = 'name = "tiny"\nmemory = "64M"\naccelerator = "tcg"\n[vtpm]\nenabled = false\n'
DEADLINE_S = 120
Story = Callable[["Host"], Awaitable[None]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: unix sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="korora-") as name:
        yield Path(name)


class Host:
    """A machine whose daemon may be replaced. Every QEMU that it started is ended with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk = Disk()
        self.pids: set[int] = set()

    def daemon(self) -> Guests:
        qemu = Qemu(self.folder / "cache")
        return Guests(qemu, FakeVtpmAgent(World()), MemoryJournal(self.disk), self.folder / "vms")

    def clear(self) -> None:
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


async def stopped(guests: Guests) -> bool:
    return (await guests.status("tiny")).state is RunState.STOPPED


def test_a_vm_outlives_its_daemon_and_its_end_is_noticed(folder: Path) -> None:
    async def story(host: Host) -> None:
        first = host.daemon()
        pid = (await first.run(TINY)).machine.pid
        host.pids.add(pid)
        assert (await first.status("tiny")).state is RunState.RUNNING
        await first.close()
        second = host.daemon()
        await second.recover()
        status = await second.status("tiny")
        assert (status.state, status.pid) == (RunState.RUNNING, pid)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: second.counts()["running"] == 0)
        status = await second.status("tiny")
        assert status.life is not None
        assert "without being asked" in status.life.reason
        host.pids.add((await second.start("tiny")).machine.pid)
        await second.stop("tiny", force=True)
        assert await stopped(second)
        await second.close()

    tell(story, folder)


def test_a_vm_that_died_between_two_daemons_is_recorded_as_stopped(folder: Path) -> None:
    async def story(host: Host) -> None:
        first = host.daemon()
        pid = (await first.run(TINY)).machine.pid
        host.pids.add(pid)
        await first.close()
        os.kill(pid, signal.SIGKILL)
        second = host.daemon()
        await second.recover()
        status = await second.status("tiny")
        assert (status.state, status.pid) == (RunState.STOPPED, None)
        assert status.life is not None
        assert "while the daemon was not running" in status.life.reason
        await second.close()

    tell(story, folder)


def test_a_qemu_of_somebody_else_is_adopted_found_again_and_ended(folder: Path) -> None:
    async def story(host: Host) -> None:
        qmp = folder / "foreign.sock"
        words = ["qemu-system-x86_64", "-accel", "tcg", "-m", "64", "-display", "none", "-name", "foreign"]
        foreign = await asyncio.to_thread(subprocess.Popen, [*words, "-qmp", f"unix:{qmp},server=on,wait=on"])
        host.pids.add(foreign.pid)
        await until(qmp.exists)
        first = host.daemon()
        live = await first.adopt(qmp, "tiny")
        assert live.machine.pid == foreign.pid
        await first.close()
        second = host.daemon()
        await second.recover()
        assert (await second.status("tiny")).state is RunState.RUNNING
        await second.stop("tiny", force=True)
        await asyncio.to_thread(foreign.wait, 20)
        assert await stopped(second)
        await second.close()

    tell(story, folder)


def tell(story: Story, folder: Path) -> None:
    host = Host(folder)
    try:
        asyncio.run(asyncio.wait_for(story(host), DEADLINE_S))
    finally:
        host.clear()
