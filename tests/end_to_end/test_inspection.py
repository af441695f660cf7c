"""A running guest is looked into, kept for what is found, let go by a person, and verified elsewhere."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from end_to_end.conftest import Lab
from fakes.scanner import eicar
from korora.lab.guest.image import guest_image
from korora.lab.machines import LabMachine, Workload, write_machine
from korora.lab.observer import Observer
from korora.lab.site import inspection

pytestmark = pytest.mark.end_to_end

MIB = 1 << 20
NUMBERS = itertools.count(31)  # each test has a VM that no host has known
LIGHT = Workload(dirty_mib=4, dirty_rate_mib=1, fill_mib=8, verify_rate_mib=2)
POLICY = '[checks]\nmalware = "block"\npackages = "report"\nindicators = "off"\nunknown = "report"\n'


class Archive:
    """A guest with a second disk, on which lies a file system with a virus in it."""

    def __init__(self, lab: Lab, observer: Observer, machine: LabMachine) -> None:
        self.lab = lab
        self.observer = observer
        self.machine = machine
        self.name = machine.name
        self.ip = machine.ip(lab.layout)
        self.data = lab.layout.storage / f"{machine.name}-data.raw"

    def ended(self, *words: str) -> tuple[int, Any, str]:
        done = self.lab.korora(*words, "--json")
        lines = done.stdout.strip().splitlines()
        return done.returncode, json.loads(lines[-1]) if lines else None, done.stderr

    def where(self) -> str:
        (view,) = (one for one in self.lab.answer("vm", "list") if one["name"] == self.name and one["owned"])
        return str(view["host"])

    def flags(self) -> list[dict[str, Any]]:
        return [one for one in self.lab.answer("flags", "list", "--all") if one["vm"] == self.name]


@pytest.fixture
def archive(lab: Lab, observer: Observer, tmp_path: Path) -> Iterator[Archive]:
    number = next(NUMBERS)
    made = Archive(lab, observer, LabMachine(f"archive-{number}", number, memory="192M", workload=LIGHT))
    before = inspection(lab.layout).read_text()
    tree = tmp_path / "tree"
    (tree / "srv").mkdir(parents=True)
    (tree / "srv" / "evil.com").write_bytes(eicar())
    (tree / "srv" / "noise").write_bytes(os.urandom(MIB))
    with made.data.open("wb") as file:
        file.truncate(16 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-d", tree, made.data], check=True, capture_output=True, timeout=60)
    path = write_machine(lab.layout, made.machine, guest_image())
    definition = path.read_text()
    disk = f'\n[[disks]]\nname = "data"\npath = {json.dumps(str(made.data))}\nformat = "raw"\n'
    path.write_text(definition.replace("\n[[networks]]", f"{disk}\n[[networks]]"))
    inspection(lab.layout).write_text(POLICY)
    try:
        lab.answer("-H", "a", "vm", "start", str(path))
        observer.wait_for_tick(made.ip, deadline_s=120)
        yield made
    finally:
        inspection(lab.layout).write_text(before)
        lab.korora("vm", "stop", made.name, "--force")


def test_a_guest_with_a_virus_is_kept_let_go_by_a_person_and_verified_where_it_went(archive: Archive) -> None:
    begun = time.monotonic()
    code, found, said = archive.ended("vm", "inspect", archive.name)
    assert code == 5, said
    disks = {disk["name"]: disk for disk in found["inspection"]["disks"]}
    assert set(disks) == {"disk0", "data"}
    assert all(disk["root"].startswith("blake3:") for disk in disks.values())
    assert found["inspection"]["running"]
    assert disks["data"]["files"] >= 2
    (containers,) = (one for one in found["inspection"]["checks"] if one["check"] == "containers")
    assert (containers["examined"], containers["found"], containers["unknown"]) == (2, 0, 0)
    archive.observer.wait_for_tick(archive.ip)
    seen = archive.observer.judge(archive.ip, since_s=begun)
    assert (seen.reboots, seen.doubled) == (0, 0)
    assert archive.observer.report(archive.ip)["disk"]["errors"] == 0

    code, outcome, said = archive.ended("migrate", archive.name, "--to", "b")
    assert (code, outcome["outcome"], outcome["error"]["kind"]) == (3, "refused", "flagged"), said
    assert "/srv/evil.com" in outcome["error"]["message"]
    assert archive.where() == "a"
    archive.observer.wait_for_tick(archive.ip)

    infected = [one for one in archive.flags() if one["flag"]["kind"] == "infected-file"]
    assert [one["host"] for one in infected] == ["a"]
    name = infected[0]["flag"]["id"]
    code, _, said = archive.ended("flags", "resolve", name, "restore")
    assert code == 3, said  # it is still there
    archive.lab.answer("flags", "resolve", name, "accept", "--reason", "the scanners' own test file")

    code, outcome, said = archive.ended("migrate", archive.name, "--to", "b")
    assert (code, outcome["outcome"]) == (0, "completed"), (outcome, said)
    checks = {
        one["name"]: one for one in archive.lab.answer("receipt", "verify", outcome["receipt"])["checks"]
    }
    assert checks["inspection"]["ok"]
    assert "1 resolved" in checks["inspection"]["detail"]
    assert [
        (one["host"], one["state"].split()[0]) for one in archive.flags() if one["flag"]["id"] == name
    ] == [("b", "accepted")]
    original = archive.lab.layout.directory / "original.tar"
    archive.lab.answer("flags", "export", name, str(original))
    assert eicar() in original.read_bytes()
    original.unlink()

    code, verified, said = archive.ended("vm", "verify", archive.name)
    told = verified["verification"]
    by_name = {disk["name"]: disk for disk in told["compared"]["disks"]}
    assert (told["host"], told["ran"], told["proved"]) == ("b", True, True)
    assert by_name["data"]["before"] == by_name["data"]["now"] == disks["data"]["root"]
    assert by_name["data"]["chunks_differ"] == 0
    assert by_name["disk0"]["chunks_differ"] > 0  # the guest writes there, and that is told
    assert told["compared"]["files_same"] == disks["data"]["files"]
    assert code in {0, 5, 6}, said


def test_a_stopped_guest_whose_disk_is_changed_on_the_way_is_found_out(archive: Archive) -> None:
    inspection(archive.lab.layout).write_text(POLICY.replace("block", "flag"))
    archive.lab.answer("vm", "stop", archive.name, "--force")
    here = archive.where()
    there = "b" if here == "a" else "a"
    code, outcome, said = archive.ended("migrate", archive.name, "--to", there, "--mode", "offline")
    assert (code, outcome["outcome"]) == (0, "completed"), (outcome, said)
    code, verified, said = archive.ended("vm", "verify", archive.name)
    told = verified["verification"]
    assert (told["host"], told["ran"], told["proved"]) == (there, False, True)
    assert {disk["chunks_differ"] for disk in told["compared"]["disks"]} == {0}
    with archive.data.open("r+b") as disk:
        disk.seek(9 * MIB + 17)
        disk.write(b"changed")
    code, verified, said = archive.ended("vm", "verify", archive.name)
    assert code == 5, said
    changed = [one["flag"] for one in archive.flags() if one["flag"]["kind"] == "chunk-differs"]
    assert [(one["place"]["disk"], one["place"]["offset"]) for one in changed] == [("data", 9 * MIB)]
