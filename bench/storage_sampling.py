"""Measure what it costs a guest that its disk requests are watched, and how much of its hot set is found.

guest        a real guest under TCG: eight threads read and write 4 KiB directly, seven to three, 90 % of it
             in ten zones, a tenth of the disk of 1 GiB (bench/storage_load.c); counted by query-blockstats.
block layer  the same QEMU without a guest, whose disk is read over NBD by `qemu-img bench`, eight at a time:
             more requests a second than a guest under TCG sends; QEMU writes each of them down. Counted by
             what QEMU reads (/proc/PID/io). The disk is a file in memory.

In turns: unwatched for some seconds, then one sample of a second, until all of it was read and understood, so
what the daemon computes is in it. `while_watched` is the rate of a sample against the unwatched ones before
and behind it; a second in ten costs the guest (1 - while_watched) times a tenth of a sample's length.
`recall`: of the zones' chunks, those that are called popular after three samples in 30 s; `precision`: of
the chunks that are called so, those of the zones.
Run: script/bench storage --sampling [--turns 30] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from bench import machine as this_machine
from bench.storage_guest import MIB, Boot, definition

from korora.adapters.hypervisor.machine import QemuMachine
from korora.adapters.hypervisor.qemu import Qemu
from korora.agents.dataorg.popularity import Popularity
from korora.model.definition import parse_definition
from korora.ports.hypervisor import Place

DISK_MIB: Final = 1024
ZONES: Final = 10
GOAL_COST: Final = 0.97
GOAL_RECALL: Final = 0.85
IN_MEMORY: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  a disk's own pauses measure nothing
READY_S: Final = 120.0
UNWATCHED_S: Final = 3.0
SAMPLE_S: Final = 1.0
EVERY_S: Final = 10.0
BATCH: Final = 400_000
Count = Callable[[], Awaitable[float]]


class Cost(msgspec.Struct, frozen=True):
    """For each turn: unwatched requests a second, how the rate of a sample compares, how long it took."""

    unwatched_per_s: list[float]
    while_watched: list[float]
    sample_s: list[float]

    @property
    def left(self) -> float:
        """Of the rate, with a sample every EVERY_S."""
        lost = 1 - statistics.fmean(self.while_watched)
        return 1 - lost * statistics.fmean(self.sample_s) / EVERY_S


class Report(msgspec.Struct, frozen=True):
    machine: this_machine.Machine
    turns: int
    guest: Cost
    block_layer: Cost
    recall: float
    precision: float
    requests_seen: int
    ratios: dict[str, float]
    goals: dict[str, bool]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="script/bench storage --sampling")
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    if asked.turns < 1:
        parser.error("--turns is at least 1")
    with tempfile.TemporaryDirectory(prefix="korora-heat-", dir=IN_MEMORY) as folder:
        report = asyncio.run(_measured(Path(folder), asked.turns))
    print(table(report))
    if asked.json:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return 0


def table(report: Report) -> str:
    lines = ["| load | unwatched, a second | rate while watched | a second in ten |", "|---|---|---|---|"]
    for name, cost in (("guest", report.guest), ("block layer", report.block_layer)):
        ratios = sorted(cost.while_watched)
        middle = f"{ratios[len(ratios) // 4]:.2f}–{ratios[len(ratios) * 3 // 4]:.2f}"
        lines.append(
            f"| {name} | {statistics.median(cost.unwatched_per_s):.0f} "
            f"| {statistics.fmean(ratios):.2f} (middle half {middle}) | {cost.left:.3f} |"
        )
    found = f"recall {report.recall:.2f}, precision {report.precision:.2f}"
    return "\n".join([*lines, f"{found}, {report.requests_seen} requests seen"])


def hot_chunks() -> set[int]:
    """Those of the zones."""
    zone = DISK_MIB * MIB // ZONES
    return {
        chunk
        for number in range(ZONES)
        for chunk in range(number * zone // MIB, (number * zone + zone // ZONES - 1) // MIB + 1)
    }


async def _measured(folder: Path, turns: int) -> Report:
    described = this_machine.describe("tcg")
    with (folder / "disk.raw").open("wb") as disk:
        content = os.urandom(MIB)  # not holes: QEMU's NBD server does not read those
        for _ in range(DISK_MIB):
            disk.write(content)
    async with _vm(folder, "guest", Boot.made(folder)) as machine:
        await _loaded(folder / "guest" / "console.log")
        known, seen = await _learnt(machine)
        guest = await _cost(machine, turns, lambda: _asked_by_guest(machine))
    async with _vm(folder, "plain", None) as machine, _read_by_others(machine, folder / "nbd.sock"):
        layer = await _cost(machine, turns, lambda: _read_of_files(machine))
    popular, true = set(known.hot().tolist()), hot_chunks()
    recall, precision = len(popular & true) / len(true), len(popular & true) / max(len(popular), 1)
    ratios = {
        "guest_iops": round(guest.left, 4),
        "block_layer_iops": round(layer.left, 4),
        "recall": round(recall, 3),
    }
    return Report(
        msgspec.structs.replace(described, load_after=this_machine.load()),
        turns,
        guest,
        layer,
        recall,
        precision,
        seen,
        ratios,
        {"cost": guest.left >= GOAL_COST, "recall": recall >= GOAL_RECALL},
    )


async def _learnt(machine: QemuMachine) -> tuple[Popularity, int]:
    """Three samples in 30 s."""
    known, seen = Popularity(DISK_MIB * MIB), 0
    for _ in range(3):
        sample = (await _sampled(machine))["system"]
        known.add(time.time(), sample.seconds, sample.reads, sample.writes)
        seen += len(sample.reads) + len(sample.writes)
        await asyncio.sleep(EVERY_S - SAMPLE_S)
    return known, seen


async def _sampled(machine: QemuMachine) -> dict[str, Any]:
    assert machine.sampler is not None
    return await machine.sampler.sample(SAMPLE_S)


async def _cost(machine: QemuMachine, turns: int, count: Count) -> Cost:
    async def rate(work: Awaitable[object]) -> tuple[float, float]:
        before, began = await count(), time.monotonic()
        await work
        took = time.monotonic() - began
        return (await count() - before) / took, took

    unwatched = [(await rate(asyncio.sleep(UNWATCHED_S)))[0]]
    ratios, took = [], []
    for _ in range(turns):
        watched, sample_s = await rate(_sampled(machine))
        unwatched.append((await rate(asyncio.sleep(UNWATCHED_S)))[0])
        ratios.append(round(2 * watched / (unwatched[-2] + unwatched[-1]), 3))
        took.append(round(sample_s, 3))
    return Cost([round(one, 1) for one in unwatched], ratios, took)


async def _asked_by_guest(machine: QemuMachine) -> float:
    (block,) = [one for one in await machine._qmp.execute("query-blockstats") if one.get("qdev")]
    return float(block["stats"]["rd_operations"] + block["stats"]["wr_operations"])


async def _read_of_files(machine: QemuMachine) -> float:
    read = re.search(r"^rchar: (\d+)$", Path(f"/proc/{machine.pid}/io").read_text(), re.MULTILINE)
    assert read
    return int(read[1]) / 4096


async def _loaded(console: Path) -> None:
    until = time.monotonic() + READY_S
    while not (console.exists() and console.read_bytes().count(b"load ") > 3):
        assert time.monotonic() < until, "the guest does not begin"
        await asyncio.sleep(0.5)


@contextlib.asynccontextmanager
async def _vm(folder: Path, name: str, boot: Boot | None) -> AsyncIterator[QemuMachine]:
    vm = parse_definition(definition(name, folder / "disk.raw", "tcg", boot), "the bench's VM")
    machine = await Qemu(folder / "cache").start(vm, Place(folder / name, None), incoming=False)
    try:
        yield machine
    finally:
        await machine.quit()


@contextlib.asynccontextmanager
async def _read_by_others(machine: QemuMachine, socket: Path) -> AsyncIterator[None]:
    """The disk is read over NBD meanwhile, on and on."""
    address = {"type": "unix", "data": {"path": str(socket)}}
    await machine._qmp.execute("nbd-server-start", {"addr": address})
    export = {"type": "nbd", "id": "e", "node-name": "system-node", "name": "system"}
    await machine._qmp.execute("block-export-add", export)
    words = [
        "-f",
        "raw",
        "-q",
        "-c",
        str(BATCH),
        "-d",
        "8",
        "-s",
        "4096",
        f"nbd+unix:///system?socket={socket}",
    ]

    async def on_and_on() -> None:
        while True:
            done = await asyncio.create_subprocess_exec(
                "qemu-img", "bench", *words, stdout=subprocess.DEVNULL
            )
            try:
                assert await done.wait() == 0
            except asyncio.CancelledError:
                done.kill()
                await done.wait()
                raise

    task = asyncio.create_task(on_and_on())
    await asyncio.sleep(1)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
