"""Samples in a real QEMU: bounded, never waited for, and turned off after a daemon that died."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from korora.adapters.hypervisor.qmp import Qmp
from korora.adapters.hypervisor.sampling.lines import EVENTS
from korora.adapters.hypervisor.sampling.sampler import TraceSampler, quiet
from korora.adapters.hypervisor.sampling.trace_memory import TraceMemory
from korora.errors import RefusedError

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]
DEADLINE_S = 100
MIB = 1 << 20
FRAME = "qemu-system-x86_64 -M q35 -accel tcg -m 64 -nodefaults -display none -S"
NODE = "-blockdev driver=raw,node-name=n,file.driver=file,file.filename=@disk"
VIRTIO = NODE + " -device virtio-blk-pci,id=a,drive=n"


@dataclass(slots=True)
class Bench:
    qmp: Qmp
    pid: int
    base: Path

    def sampler(self, bound_bytes: int = MIB) -> TraceSampler:
        return TraceSampler(self.qmp, self.pid, (), bound_bytes=bound_bytes)

    async def hmp(self, words: str) -> str:
        return str(await self.qmp.execute("human-monitor-command", {"command-line": words}))

    async def read(self, offset: int, device: str = "a/virtio-backend") -> None:
        said = await self.hmp(f'qemu-io -d /machine/peripheral/{device} "read -q {offset} 512"')
        assert not said.strip(), said

    async def traced(self) -> bool:
        states = await self.qmp.execute("trace-event-get-state", {"name": "blk_co_p*"})
        return any(one["state"] == "enabled" for one in states)

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))


@asynccontextmanager
async def qemu(base: Path, hardware: str = VIRTIO) -> AsyncIterator[Bench]:
    with (base / "disk").open("wb") as disk:
        disk.truncate(64 * MIB)
    words = f"{FRAME} {hardware}".replace("@", f"{base}/").split()
    with (base / "log").open("wb") as said:
        process = subprocess.Popen(  # noqa: ASYNC220  at once
            [*words, "-qmp", f"unix:{base}/qmp,server=on,wait=on"],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    try:
        qmp = await Qmp.connect(base / "qmp", 60, lambda: process.poll() is None)
        async with asyncio.timeout(DEADLINE_S):
            yield Bench(qmp, process.pid, base)
        await qmp.close()
    finally:
        process.kill()
        process.wait()


def run(base: Path, story: Callable[[Bench], Awaitable[None]], hardware: str = VIRTIO) -> None:
    async def whole() -> None:
        async with qemu(base, hardware) as made:
            await story(made)

    asyncio.run(whole())


async def until_traced(made: Bench) -> None:
    for _ in range(1000):
        if await made.traced():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nothing is traced")


@pytest.mark.parametrize(
    ("hardware", "device"),
    [
        (VIRTIO.replace("virtio-blk-pci", "ide-hd"), "a"),
        (VIRTIO.replace("virtio-blk-pci", "nvme,serial=1"), "a"),
        ("-device virtio-scsi-pci " + VIRTIO.replace("virtio-blk-pci", "scsi-hd"), "a"),
        (
            "-object iothread,id=t " + VIRTIO.replace("virtio-blk-pci", "virtio-blk-pci,iothread=t"),
            "a/virtio-backend",
        ),
        (VIRTIO + " -msg timestamp=on", "a/virtio-backend"),
    ],
)
def test_disks_of_every_kind_are_watched(tmp_path: Path, hardware: str, device: str) -> None:
    async def story(made: Bench) -> None:
        task = asyncio.create_task(made.sampler().sample(1.0))
        await until_traced(made)
        await asyncio.sleep(0.2)
        await made.read(7 * MIB, device)
        (sample,) = (await task).values()
        assert [7 * MIB, 512] in sample.reads.tolist()

    run(tmp_path, story, hardware)


def test_a_vm_without_disks_has_nothing_to_watch(tmp_path: Path) -> None:
    async def story(made: Bench) -> None:
        assert await made.sampler().sample(5.0) == {}

    run(tmp_path, story, "")


def test_more_requests_than_fit_end_a_sample_early_and_are_bounded(tmp_path: Path) -> None:
    async def story(made: Bench) -> None:
        sampler = made.sampler(16_384)
        task = asyncio.create_task(sampler.sample(600.0))
        await until_traced(made)
        asked = 0
        while not task.done():
            await made.read(512 * (asked % 1000))
            asked += 1
        sample = (await task)["a"]
        assert 0 < sample.seconds < 600
        assert 100 < len(sample.reads) <= 16_384 // 80
        assert not await made.traced()

    run(tmp_path, story)


def test_a_full_memory_holds_nobody_up(tmp_path: Path) -> None:
    """As after a daemon that was killed: nobody reads, nobody turns it off."""

    async def story(made: Bench) -> None:
        memory = await TraceMemory.opened(made.qmp, made.pid, 4096)
        for event in EVENTS:
            await made.qmp.execute("trace-event-set-state", {"name": event, "enable": True})
        for number in range(500):
            await made.read(512 * number)
        assert 3500 < memory.used_bytes <= 4096
        assert memory.bound_bytes == 4096
        memory.close()
        await made.read(0)

    run(tmp_path, story)


def test_what_a_daemon_that_died_left_on_is_turned_off(tmp_path: Path) -> None:
    async def story(made: Bench) -> None:
        task = asyncio.create_task(made.sampler().sample(600.0))
        await until_traced(made)
        # Killed: nothing of it runs any more, and its connection is gone.
        await made.qmp.close()
        task.cancel()
        await asyncio.wait([task])
        again = await Qmp.connect(made.base / "qmp", 30)
        made.qmp = again
        assert await made.traced()
        await quiet(again)
        assert not await made.traced()
        await made.read(0)

    run(tmp_path, story)


DAEMON = """
import asyncio, sys
from pathlib import Path
from korora.adapters.hypervisor.qmp import Qmp
from korora.adapters.hypervisor.sampling.guard import Guard
from korora.adapters.hypervisor.sampling.sampler import TraceSampler
async def sample():
    path = Path(sys.argv[1])
    qmp, guard = await Qmp.connect(path, 30), Guard()
    sampler = TraceSampler(qmp, int(sys.argv[2]), (), guarded=(guard, path))
    await sampler.sample(0.1)
    task = asyncio.create_task(sampler.sample(600))
    state = {"name": "blk_co_p*"}
    while not any(one["state"] == "enabled" for one in await qmp.execute("trace-event-get-state", state)):
        await asyncio.sleep(0.01)
    print(guard.pid, flush=True)
    await task
asyncio.run(sample())
"""


def test_a_daemon_that_is_killed_in_a_sample_leaves_nothing_on(tmp_path: Path) -> None:
    async def story(made: Bench) -> None:
        await made.qmp.close()
        daemon = await asyncio.create_subprocess_exec(
            sys.executable, "-c", DAEMON, made.base / "qmp", str(made.pid), stdout=subprocess.PIPE
        )
        assert daemon.stdout is not None
        guard = int(await daemon.stdout.readline())
        os.kill(guard, signal.SIGTERM)  # as a service manager does to all of a service's processes
        daemon.kill()
        await daemon.wait()
        for _ in range(1000):
            if not Path(f"/proc/{guard}").exists():
                break
            await asyncio.sleep(0.02)
        made.qmp = await Qmp.connect(made.base / "qmp", 30)
        assert not await made.traced()

    run(tmp_path, story)


def test_many_samples_and_daemons_leave_no_descriptors_behind(tmp_path: Path) -> None:
    async def story(made: Bench) -> None:
        await made.qmp.execute("cont")
        counts = []
        for _ in range(4):
            sampler = made.sampler()
            for _ in range(2):
                await sampler.sample(0.1)
            await sampler.close()
            await asyncio.sleep(0.5)
            counts.append(made.descriptors())
        assert counts[-1] <= counts[1]
        assert await made.qmp.execute("query-fdsets") == []

    run(tmp_path, story)


def test_nothing_is_said_into_the_log_of_the_vm(tmp_path: Path) -> None:
    async def story(made: Bench) -> None:
        before = (made.base / "log").read_bytes()
        await made.sampler().sample(0.2)
        assert (made.base / "log").read_bytes() == before

    run(tmp_path, story)


def test_a_qemu_that_cannot_be_held_is_refused_and_goes_on(tmp_path: Path) -> None:
    """Its log is looked for in another process."""

    async def story(made: Bench) -> None:
        with pytest.raises(RefusedError) as refused:
            await TraceSampler(made.qmp, os.getpid(), ()).sample(0.1)
        assert refused.value.kind == "not-sampled"
        assert not await made.traced()
        await made.read(0)

    run(tmp_path, story)


def test_a_drive_that_waits_for_its_turn_does_not_hold_qemu_up(tmp_path: Path) -> None:
    """A disk that may do one request in 10 s: the knock waits in its queue, QEMU and we do not."""
    throttled = "-object throttle-group,id=tg,x-iops-total=1,x-iops-total-max=1 " + VIRTIO.replace(
        "driver=raw", "driver=throttle,throttle-group=tg"
    ).replace("file.driver=file", "file.driver=raw,file.file.driver=file").replace(
        "file.filename", "file.file.filename"
    )

    async def story(made: Bench) -> None:
        for _ in range(4):
            await made.hmp('qemu-io -d /machine/peripheral/a/virtio-backend "aio_read -q 0 512"')
        async with asyncio.timeout(30):
            assert set(await made.sampler().sample(0.2)) == {"a"}

    run(tmp_path, story, throttled)
