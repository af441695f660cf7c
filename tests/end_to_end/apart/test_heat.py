"""What is popular on a real QEMU's disk: learnt while it runs, and known to the next daemon."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fakes.guests_world import FakeVtpmAgent, World
from fakes.journal import Disk, MemoryJournal
from korora.adapters.hypervisor.qemu import Qemu
from korora.model.configuration import Watching
from korora.ports.clock import SystemClock
from korora.supervision.guests import Guests
from korora.supervision.heat.watching import HeatWatch

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]
DEADLINE_S = 120
MIB = 1 << 20
VM = 'name = "tiny"\nmemory = "64M"\naccelerator = "tcg"\n[vtpm]\nenabled = false\n[[disks]]\n'


async def told(machine: Any, command: str, **arguments: Any) -> Any:
    return await machine._qmp.execute(command, arguments)


def test_what_a_guest_reads_again_and_again_is_popular_and_known_to_the_next_daemon() -> None:
    async def story(folder: Path) -> None:
        disk = Disk()
        (folder / "disk.raw").write_bytes(bytes(64 * MIB))

        def daemon() -> tuple[Guests, HeatWatch]:
            guests = Guests(
                Qemu(folder / "cache"), FakeVtpmAgent(World()), MemoryJournal(disk), folder / "vms"
            )
            return guests, HeatWatch(guests, SystemClock(), Watching(1.0, 0.4))

        guests, heat = daemon()
        live = await guests.run(VM + f'name = "system"\npath = "{folder}/disk.raw"\nformat = "raw"\n')
        try:
            await heat.start()
            read = 'qemu-io -d /machine/peripheral/system/virtio-backend "read -q 7M 4k"'

            async def popular(watch: HeatWatch) -> tuple[tuple[int, int], ...]:
                return next((one.hot for one in (await watch.heat("tiny", 64)).disks), ())

            while await popular(heat) != ((7, 1),):
                await told(live.machine, "human-monitor-command", **{"command-line": read})
                await asyncio.sleep(0.02)
            await heat.stop()
            states = await told(live.machine, "trace-event-get-state", name="blk_co_p*")
            assert {one["state"] for one in states} == {"disabled"}
            await guests.close()

            guests, heat = daemon()
            await guests.recover()
            assert await popular(heat) == ((7, 1),)
            await heat.start()
            await guests.stop("tiny", force=True)
            await heat.stop()
        finally:
            await guests.close()
            with suppress(ProcessLookupError):
                os.kill(live.machine.pid, signal.SIGKILL)

    async def bounded(folder: Path) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await story(folder)

    with tempfile.TemporaryDirectory(prefix="korora-") as name:
        asyncio.run(bounded(Path(name)))
