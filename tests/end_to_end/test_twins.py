"""A second VM of a kind sends what is not there yet, and arrives whole, whatever became of the first one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from end_to_end.conftest import Lab
from korora.lab.guest.image import guest_image
from korora.lab.machines import LabMachine, Workload, write_machine
from korora.lab.observer import Observer

pytestmark = pytest.mark.end_to_end

MIB = 1 << 20
LEARNT_WITHIN_S = 120.0
QUIET = Workload(dirty_mib=1, dirty_rate_mib=1, fill_mib=4, verify_rate_mib=1)


@contextmanager
def twin(lab: Lab, observer: Observer, number: int, content: bytes) -> Iterator[LabMachine]:
    """It runs at a, with a disk beside its own that holds this."""
    made = LabMachine(f"twin-{number}", 90 + number, memory="128M", workload=QUIET)
    data = lab.layout.storage / f"{made.name}-data.raw"
    data.write_bytes(content)
    path = write_machine(lab.layout, made, guest_image())
    disk = f'\n[[disks]]\nname = "data"\npath = {json.dumps(str(data))}\nformat = "raw"\n'
    path.write_text(path.read_text().replace("\n[[networks]]", f"{disk}\n[[networks]]"))
    try:
        lab.answer("-H", "a", "vm", "start", str(path))
        observer.wait_for_tick(made.ip(lab.layout), deadline_s=120)
        yield made
    finally:
        lab.korora("vm", "stop", made.name, "--force")


def moved(lab: Lab, machine: LabMachine, *words: str) -> dict[str, Any]:
    done = lab.korora("migrate", machine.name, "--to", "b", "--disks", "data", *words, "--json")
    outcome: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    assert (done.returncode, outcome["outcome"]) == (0, "completed"), (outcome, done.stderr)
    return outcome


def at_b(lab: Lab, machine: LabMachine) -> Path:
    return lab.layout.host("b").state / "vms" / machine.name / "disks" / "data.raw"


def learnt(lab: Lab) -> list[dict[str, Any]]:
    store = ("--store", str(lab.layout.host("b").state / "store"))
    done = lab.korora("store", "list", *store, "--tenant", "twins", "--json")
    return list(json.loads(done.stdout)["origins"]) if done.returncode == 0 else []


def test_what_the_first_one_brought_need_not_be_sent_for_the_second(lab: Lab, observer: Observer) -> None:
    noise = os.urandom(48 * MIB)
    with twin(lab, observer, 1, noise) as first:
        brought = moved(lab, first)["bytes_sent"]
        assert at_b(lab, first).read_bytes() == noise
        limit = time.monotonic() + LEARNT_WITHIN_S
        while not any(one["entries"] > 48 * 256 for one in learnt(lab)):
            assert time.monotonic() < limit, learnt(lab)
            time.sleep(0.2)
        assert [one["path"] for one in learnt(lab)] == [str(at_b(lab, first))]

        with at_b(lab, first).open("r+b") as file:  # the first one's disk goes on changing
            file.seek(9 * MIB + 5 * 4096)
            file.write(os.urandom(3 * 4096))
        other = bytearray(noise)
        other[20 * MIB : 20 * MIB + 8192] = os.urandom(8192)
        other[30 * MIB :] = noise[30 * MIB + 4096 :] + bytes(4096)  # the same, elsewhere by a block
        with twin(lab, observer, 2, bytes(other)) as second:
            sent = moved(lab, second)["bytes_sent"]
            assert at_b(lab, second).read_bytes() == other
            assert sent < brought - 44 * MIB
            observer.wait_for_tick(second.ip(lab.layout))
            mirrored = moved_back_and_mirrored(lab, second)
            assert at_b(lab, second).read_bytes() == other
            assert mirrored > sent + 44 * MIB


def moved_back_and_mirrored(lab: Lab, machine: LabMachine) -> int:
    """A mirror asks for nothing."""
    done = lab.korora("migrate", machine.name, "--to", "a", "--disks", "data", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return int(moved(lab, machine, "--storage-mode", "mirror")["bytes_sent"])
