"""What everyone who watches a guest's requests must do. QEMU runs here under TCG without a guest system.

So requests are made by the very device of the guest (HMP `qemu-io -d`); its firmware reads the first sector.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fakes.hypervisor import FakeHypervisor, World
from korora.adapters.hypervisor.qemu import Qemu
from korora.errors import KororaError, ToolError
from korora.model.definition import parse_definition
from korora.model.vm import VmDefinition
from korora.ports.hypervisor import Hypervisor, Machine, Place
from korora.ports.sampling import DiskSample, Requests, RequestSampler

DEADLINE_S = 100
MIB = 1 << 20
SIZE = 64 * MIB
LONG_S = 600.0
CACHE = Path(tempfile.gettempdir()) / f"korora-sampling-{os.getpid()}"
KINDS = [
    "fake",
    pytest.param(
        "qemu",
        marks=[
            pytest.mark.end_to_end,
            pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
        ],
    ),
]


@dataclass(slots=True)
class Bench:
    """One running VM with the disks `system` (raw) and `data` (qcow2)."""

    machine: Machine
    vm: VmDefinition
    place: Place
    again: Callable[[], Hypervisor]
    ask: Callable[[str, bool, int, int], Awaitable[None]]  # as its guest would
    watched: Callable[[], Awaitable[bool]]
    kill: Callable[[], None]

    @property
    def sampler(self) -> RequestSampler:
        assert self.machine.sampler is not None
        return self.machine.sampler

    async def seen(self, *asked: tuple[str, bool, int, int]) -> dict[str, DiskSample]:
        """A sample in which these are asked."""
        task = asyncio.create_task(self._sampled())
        await self.until_watched()
        for one in asked:
            await self.ask(*one)
        return await task

    async def until_watched(self) -> None:
        for _ in range(1000):
            if await self.watched():
                await asyncio.sleep(0.1)
                return
            await asyncio.sleep(0.02)
        raise AssertionError("nobody watches")

    async def _sampled(self) -> dict[str, DiskSample]:
        return dict(await self.sampler.sample(2.0))


async def _command(machine: Machine, command: str, **arguments: Any) -> Any:
    return await machine._qmp.execute(command, arguments)  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def bench(kind: str, base: Path) -> AsyncIterator[Bench]:
    for name, made in (("system", "raw"), ("data", "qcow2")):
        command = ["qemu-img", "create", "-q", "-f", made, str(base / name), str(SIZE)]
        if kind == "qemu":
            process = await asyncio.create_subprocess_exec(*command)
            assert await process.wait() == 0
    vm = parse_definition(
        'name = "tiny"\nmemory = "64M"\naccelerator = "tcg"\n[vtpm]\nenabled = false\n'
        f'[[disks]]\nname = "system"\npath = "{base}/system"\nformat = "raw"\n'
        f'[[disks]]\nname = "data"\npath = "{base}/data"\nformat = "qcow2"\n',
        "the tests' VM",
    )
    world, place = World(), Place(base / "a", None)
    hypervisor: Hypervisor = FakeHypervisor("a", world) if kind == "fake" else Qemu(CACHE)
    machine = await hypervisor.start(vm, place, incoming=False)

    async def ask_qemu(disk: str, write: bool, offset: int, length: int) -> None:
        words = f"{'write' if write else 'read'} -q {offset} {length}"
        line = f'qemu-io -d /machine/peripheral/{disk}/virtio-backend "{words}"'
        await _command(machine, "human-monitor-command", **{"command-line": line})

    async def ask_fake(disk: str, write: bool, offset: int, length: int) -> None:
        machine.guest.requests.asked.append((disk, write, offset, length))  # type: ignore[attr-defined]

    async def watched_qemu() -> bool:
        states = await _command(machine, "trace-event-get-state", name="blk_co_p*")
        return any(one["state"] == "enabled" for one in states)

    async def watched_fake() -> bool:
        return bool(machine.guest.requests.watched)  # type: ignore[attr-defined]

    def kill() -> None:
        if kind == "fake":
            machine.guest.die()  # type: ignore[attr-defined]
        else:
            os.kill(machine.pid, signal.SIGKILL)

    made_bench = Bench(
        machine,
        vm,
        place,
        lambda: FakeHypervisor("a", world) if kind == "fake" else Qemu(CACHE),
        ask_fake if kind == "fake" else ask_qemu,
        watched_fake if kind == "fake" else watched_qemu,
        kill,
    )
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield made_bench
    finally:
        with contextlib.suppress(KororaError):
            await machine.quit()


Run = Callable[[Callable[[Bench], Awaitable[None]]], None]


@pytest.fixture(params=KINDS)
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    base = Path(tempfile.mkdtemp(prefix="korora-heat-"))

    async def whole(story: Callable[[Bench], Awaitable[None]]) -> None:
        async with bench(request.param, base) as made:
            await story(made)

    yield lambda story: asyncio.run(whole(story))
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def _probe_cache() -> Iterator[None]:
    yield
    shutil.rmtree(CACHE, ignore_errors=True)


def test_reads_and_writes_of_each_disk_are_seen_where_they_fall(run: Run) -> None:
    async def story(made: Bench) -> None:
        seen = await made.seen(
            ("system", False, 5 * MIB, 4096),
            ("data", True, 7 * MIB, 8192),
            ("system", False, 9 * MIB, 512),
            ("data", False, 512, 512),
        )
        assert set(seen) == {"system", "data"}
        assert beyond_the_first(seen["system"].reads) == [[5 * MIB, 4096], [9 * MIB, 512]]
        assert seen["system"].writes.tolist() == []
        assert seen["data"].reads.tolist() == [[512, 512]]
        assert seen["data"].writes.tolist() == [[7 * MIB, 8192]]
        assert all(one.size == SIZE and one.seconds >= 1.0 for one in seen.values())

    run(story)


def test_what_is_asked_between_two_samples_is_not_seen(run: Run) -> None:
    async def story(made: Bench) -> None:
        await made.seen(("system", False, 0, 512))
        await made.ask("system", False, 3 * MIB, 512)
        seen = await made.seen(("system", True, 4 * MIB, 512))
        assert beyond_the_first(seen["system"].reads) == []
        assert seen["system"].writes.tolist() == [[4 * MIB, 512]]

    run(story)


def test_nobody_watches_once_a_sample_is_over(run: Run) -> None:
    async def story(made: Bench) -> None:
        assert not await made.watched()
        await made.seen()
        assert not await made.watched()

    run(story)


def test_nobody_watches_once_a_sample_was_cancelled(run: Run) -> None:
    async def story(made: Bench) -> None:
        task = asyncio.create_task(_sample(made, LONG_S))
        await made.until_watched()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not await made.watched()
        assert "system" in await made.seen()

    run(story)


def test_two_samples_come_one_after_the_other(run: Run) -> None:
    async def story(made: Bench) -> None:
        both = await asyncio.gather(_sample(made, 0.2), _sample(made, 0.2))
        assert all(set(one) == {"system", "data"} for one in both)

    run(story)


def test_a_vm_that_ends_meanwhile_is_an_error(run: Run) -> None:
    async def story(made: Bench) -> None:
        task = asyncio.create_task(_sample(made, 1.0))
        await made.until_watched()
        made.kill()
        with pytest.raises(ToolError):
            await task
        with pytest.raises(KororaError):
            await made.sampler.sample(0.1)

    run(story)


def test_a_daemon_that_comes_after_one_that_died_watches_anew(run: Run) -> None:
    async def story(made: Bench) -> None:
        await made.seen()
        await made.machine.close()
        found = await made.again().attach(made.vm, made.place)
        assert found is not None
        assert found.sampler is not None
        try:
            assert set(await found.sampler.sample(0.2)) == {"system", "data"}
        finally:
            await found.quit()

    run(story)


def beyond_the_first(requests: Requests) -> list[list[int]]:
    return [row for row in requests.tolist() if row[0]]


async def _sample(made: Bench, seconds: float) -> dict[str, DiskSample]:
    return dict(await made.sampler.sample(seconds))
