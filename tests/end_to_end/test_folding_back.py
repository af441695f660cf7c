"""A daemon that is killed while it folds a disk back: the next one finishes it, and no write is lost."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from end_to_end.conftest import Lab
from end_to_end.ordering import Order
from end_to_end.travelling import kill_daemon, restart_daemon, start_daemon, until
from fakes.failing_file import Storage, below, slow
from korora.lab.guest.image import guest_image
from korora.lab.lifecycle import korora_command
from korora.lab.machines import LabMachine, Workload, write_machine
from korora.lab.observer import Observer

pytestmark = pytest.mark.end_to_end

MIB = 1 << 20
MACHINE = LabMachine(
    "folder", 61, memory="192M", workload=Workload(dirty_mib=4, dirty_rate_mib=1, fill_mib=8)
)
BLOCKS, BLOCK_BYTES, BLOCKS_AT = 256, 4096, MIB  # what the guest walks over: korora/lab/guest/disk.c
FACTOR = 0x9E3779B97F4A7C15
WRITTEN_ELSEWHERE = 20


FAST, STILL = 64 * MIB, 16 << 10


@pytest.fixture
def disk(lab: Lab) -> Path:
    """The guest's."""
    return MACHINE.disk_path(lab.layout)


@pytest.fixture
def storage(lab: Lab, disk: Path) -> Iterator[Storage]:
    """Of that disk; the guest runs on it."""
    with disk.open("wb") as file:
        file.seek(8 * MIB)
        file.write(os.urandom(24 * MIB))  # so that it takes long to copy
        file.truncate(64 * MIB)
    here = lab.layout.host("a")
    with slow(disk, read_bytes_per_s=2 * MIB, write_bytes_per_s=FAST) as storage:
        restart_daemon(lab, here)  # it sees that file now
        try:
            lab.answer("-H", "a", "vm", "start", str(write_machine(lab.layout, MACHINE, guest_image())))
            yield storage
        finally:
            lab.korora("vm", "stop", MACHINE.name, "--force")
    disk.unlink()


def writes(disk: Path) -> int:
    """How many writes of the guest are on it; it must have all of them up to one, and none after that."""
    generations = []
    with disk.open("rb") as file:
        file.seek(BLOCKS_AT)
        for number in range(BLOCKS):
            words = memoryview(file.read(BLOCK_BYTES)).cast("Q")
            if not any(words):
                generations.append(0)
                continue
            first = words[0] * pow(FACTOR, -1, 1 << 64) % (1 << 64)
            assert first & 0xFFFFF == number
            assert list(words) == [(words[0] + at) % (1 << 64) for at in range(len(words))]
            generations.append(first >> 20)
    assert generations == sorted(generations, reverse=True)
    assert generations[0] - generations[-1] <= 1
    return sum(generations)


def test_a_daemon_that_is_killed_while_it_folds_back_is_followed_by_one_that_finishes_it(
    lab: Lab, observer: Observer, disk: Path, storage: Storage
) -> None:
    here, ip = lab.layout.host("a"), MACHINE.ip(lab.layout)
    folder = here.state / "vms" / MACHINE.name
    record = folder / "outsourced.json"

    def told() -> dict[str, Any]:
        observer.wait_for_tick(ip)
        report: dict[str, Any] = observer.report(ip)["disk"]
        assert report["errors"] == 0
        return report

    def used() -> bool:
        return record.exists() and all(one["used"] for one in json.loads(record.read_bytes()))

    observer.wait_for_tick(ip, deadline_s=120)
    words = ["--to", "b", "--disks", "all", "--storage-mode", "outsource"]
    command = [*korora_command(), "--config", str(lab.layout.configuration), "migrate", MACHINE.name]
    order = Order([*command, *words, "--json"])
    try:
        until(used, 120)
        frozen, before = writes(below(disk)), told()["checks"]
        until(lambda: told()["checks"] > before + WRITTEN_ELSEWHERE, 120)
        assert writes(below(disk)) == frozen
        untouched = below(disk).stat().st_mtime_ns
        storage.gives(read_bytes_per_s=FAST, write_bytes_per_s=STILL)
        order.interrupt()
        until(lambda: below(disk).stat().st_mtime_ns != untouched, 120)
        kill_daemon(lab, here)
        assert used()
        before = told()["checks"]
        until(lambda: told()["checks"] > before, 60)
        storage.gives(read_bytes_per_s=FAST, write_bytes_per_s=FAST)
        start_daemon(lab, here)
        until(lambda: not record.exists(), 120)
    finally:
        order.end()
    assert order.ended().outcome["outcome"] != "completed"
    assert not list(folder.glob("korora-*"))
    assert not (lab.layout.host("b").state / "vms" / MACHINE.name).exists()
    now = told()["checks"]
    until(lambda: told()["checks"] > now + 1, 60)
    now = told()["checks"]
    lab.answer("vm", "stop", MACHINE.name, "--force")
    assert writes(below(disk)) >= now
    seen = observer.judge(ip)
    assert (seen.reboots, seen.doubled) == (0, 0)
