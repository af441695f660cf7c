"""A running guest moves with its disks, on and back, in another format, and its data is what it wrote."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from end_to_end.conftest import Lab, lab_of
from end_to_end.ordering import Order
from end_to_end.travelling import CLEARED_S, until
from fakes.failing_file import failing
from korora.lab.guest.image import guest_image
from korora.lab.lifecycle import daemon_name, korora_command
from korora.lab.machines import LabMachine, Workload, write_machine
from korora.lab.observer import Observer
from korora.lab.processes import Processes
from korora.lab.site import inspection
from korora.migration.known import known
from korora.protocol.flag import placeholder

pytestmark = pytest.mark.end_to_end

MIB = 1 << 20
NUMBERS = itertools.count(41)  # each test has a VM that no host has known
OFF = ("configuration", "containers", "files", "packages", "malware", "indicators", "unknown")
CHECKS = '[checks]\ndisks = "{}"\n' + "".join(f'{check} = "off"\n' for check in OFF)
LIGHT = Workload(dirty_mib=4, dirty_rate_mib=1, fill_mib=8, verify_rate_mib=2)


class Traveller:
    """A guest that writes to its first disk and leaves its second alone."""

    def __init__(self, lab: Lab, observer: Observer, machine: LabMachine) -> None:
        self.lab = lab
        self.observer = observer
        self.machine = machine
        self.name = machine.name
        self.ip = machine.ip(lab.layout)
        self.data = lab.layout.storage / f"{machine.name}-data.raw"
        self.noise = os.urandom(8 * MIB)

    def ended(self, *words: str) -> tuple[int, Any, str]:
        done = self.lab.korora(*words, "--json")
        lines = done.stdout.strip().splitlines()
        return done.returncode, json.loads(lines[-1]) if lines else None, done.stderr

    def folder(self, host: str) -> Path:
        return self.lab.layout.host(host).state / "vms" / self.name / "disks"

    def leaves_nothing_on(self, host: str) -> None:
        """Of a move that failed: the other host clears away while the outcome is told."""
        until(lambda: not self.folder(host).exists(), CLEARED_S)


@contextmanager
def on_the_road(lab: Lab, observer: Observer, *broken: int, over: Path | None = None) -> Iterator[Traveller]:
    """`broken`: bytes of its data disk that cannot be read. `over`: an image beneath its data disk."""
    number = next(NUMBERS)
    made = Traveller(lab, observer, LabMachine(f"mover-{number}", number, memory="192M", workload=LIGHT))
    with made.data.open("wb") as file:
        file.seek(4 * MIB)
        file.write(made.noise)
        file.truncate(64 * MIB)
    path = write_machine(lab.layout, made.machine, guest_image())
    disk = f'\n[[disks]]\nname = "data"\npath = {json.dumps(str(made.data))}\nformat = "raw"\n'
    if over is not None:
        disk = disk.replace('"raw"', '"qcow2"')
        disk += f'[[disks.backing]]\npath = {json.dumps(str(over))}\nformat = "qcow2"\n'
        _lay_over(made.data, over, made.noise)
    path.write_text(path.read_text().replace("\n[[networks]]", f"{disk}\n[[networks]]"))
    here = Processes(lab.layout.processes).find(daemon_name(lab.layout.host("a")))
    with failing(made.data, *broken, seen_by=known(here).pid) if broken else nullcontext():
        try:
            lab.answer("-H", "a", "vm", "start", str(path))
            observer.wait_for_tick(made.ip, deadline_s=120)
            yield made
        finally:
            lab.korora("vm", "stop", made.name, "--force")


def _lay_over(path: Path, beneath: Path, noise: bytes) -> None:
    """An image at this path, instead of what was there: this noise at 4 MiB, and else what is beneath."""
    path.write_bytes(noise)
    own = path.rename(path.with_suffix(".noise"))
    _run("qemu-img", "create", "-q", "-f", "qcow2", "-b", beneath, "-F", "qcow2", path)
    _run("qemu-io", "-f", "qcow2", "-c", f"write -q -s {own} 4M {len(noise)}", path)
    own.unlink()


def _run(*words: str | Path) -> None:
    subprocess.run([*map(str, words)], check=True, capture_output=True, timeout=120)


@pytest.fixture
def traveller(lab: Lab, observer: Observer) -> Iterator[Traveller]:
    with on_the_road(lab, observer) as made:
        yield made


def test_a_guest_moves_with_its_disks_comes_back_in_another_format_and_moves_stopped(
    traveller: Traveller,
) -> None:
    before = traveller.data
    first = traveller.machine.disk_path(traveller.lab.layout)
    code, outcome, said = traveller.ended("check", traveller.name, "--to", "b", "--disks", "all")
    assert code == 0, (outcome, said)
    code, outcome, said = traveller.ended("migrate", traveller.name, "--to", "b", "--disks", "all")
    assert (code, outcome["outcome"]) == (0, "completed"), (outcome, said)
    assert not before.exists()
    assert not first.exists()
    data = traveller.folder("b") / "data.raw"
    assert data.read_bytes()[4 * MIB : 12 * MIB] == traveller.noise
    assert data.stat().st_blocks * 512 < 16 * MIB  # zeros take no room
    _is_well(traveller)
    told = traveller.lab.answer("receipt", "verify", outcome["receipt"])
    arrival = next(one["detail"] for one in told["checks"] if one["name"] == "arrival")
    assert "content tree of data, disk0" in arrival

    words = ("--to", "a", "--disks", "all", "--disk-format", "qcow2")
    code, outcome, said = traveller.ended("migrate", traveller.name, *words)
    assert (code, outcome["outcome"]) == (0, "completed"), (outcome, said)
    assert not data.exists()
    assert (traveller.folder("a") / "data.qcow2").read_bytes()[:4] == b"QFI\xfb"
    _is_well(traveller)

    traveller.lab.answer("vm", "stop", traveller.name, "--force")
    stopped = ("--to", "b", "--mode", "offline", "--disks", "all", "--disk-format", "raw")
    code, outcome, said = traveller.ended("migrate", traveller.name, *stopped)
    assert (code, outcome["outcome"]) == (0, "completed"), (outcome, said)
    assert data.read_bytes()[4 * MIB : 12 * MIB] == traveller.noise
    assert not (traveller.folder("a") / "data.qcow2").exists()


def test_a_disk_over_a_template_moves_over_the_same_one_and_becomes_one_image_in_the_end(
    lab: Lab, observer: Observer
) -> None:
    template, noise = lab.layout.storage / "template.qcow2", os.urandom(60 * MIB)
    (raw := template.with_suffix(".raw")).write_bytes(noise + bytes(4 * MIB))
    _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, template)
    raw.unlink()
    was = template.read_bytes()
    with on_the_road(lab, observer, over=template) as traveller:
        keep = ("--disks", "data", "--keep-backing", "--incremental")
        code, outcome, said = traveller.ended("check", traveller.name, "--to", "b", *keep)
        assert code == 0, (outcome, said)
        code, live, said = traveller.ended("migrate", traveller.name, "--to", "b", *keep)
        assert (code, live["outcome"]) == (0, "completed"), (live, said)
        data = traveller.folder("b") / "data.qcow2"
        assert data.stat().st_blocks * 512 < 16 * MIB
        assert not traveller.data.exists()
        _is_well(traveller)

        traveller.lab.answer("vm", "stop", traveller.name, "--force")
        code, cold, said = traveller.ended("migrate", traveller.name, "--to", "a", "--mode", "offline", *keep)
        assert (code, cold["outcome"]) == (0, "completed"), (cold, said)
        assert cold["bytes_sent"] < 4 * MIB  # less than what the disk has itself: that was kept
        assert not data.exists()
        assert traveller.lab.answer("-H", "a", "disk", "kept") == []
        [left] = traveller.lab.answer("-H", "b", "disk", "kept")
        assert left["backing"] == [{"path": str(template), "format": "qcow2"}]
        dropped = traveller.lab.answer("-H", "b", "disk", "kept", "--drop", traveller.name)
        assert all(step["verified"] for step in dropped)
        traveller.lab.answer("-H", "a", "vm", "start", traveller.name)
        observer.wait_for_tick(traveller.ip, deadline_s=120)

        words = ("--disks", "data", "--disk-format", "raw")
        code, one, said = traveller.ended("migrate", traveller.name, "--to", "b", *words)
        assert (code, one["outcome"]) == (0, "completed"), (one, said)
        assert data.with_suffix(".raw").read_bytes()[4 * MIB : 12 * MIB] == traveller.noise
        assert data.with_suffix(".raw").read_bytes()[12 * MIB : 60 * MIB] == noise[12 * MIB :]
        assert one["bytes_sent"] > live["bytes_sent"] + 32 * MIB
        told = traveller.lab.answer("receipt", "verify", one["receipt"])
        assert "beneath" in next(check["detail"] for check in told["checks"] if check["name"] == "wipe")
    assert template.read_bytes() == was
    template.unlink()


def test_a_guest_that_returns_sends_what_differs_from_what_was_kept(traveller: Traveller) -> None:
    noise = os.urandom(60 * MIB)
    with traveller.data.open("r+b") as file:
        file.write(noise)
    words = ("--disks", "all", "--incremental")
    code, first, said = traveller.ended("migrate", traveller.name, "--to", "b", *words)
    assert (code, first["outcome"]) == (0, "completed"), (first, said)
    told = traveller.lab.answer("receipt", "verify", first["receipt"])
    assert "keeps disks" in next(one["detail"] for one in told["checks"] if one["name"] == "wipe")
    (kept,) = traveller.lab.layout.host("a").state.glob("kept/*/data.image")
    assert not traveller.data.exists()
    with kept.open("r+b") as file:  # as if the guest had written 2 % of it anew at b, all over
        for at in range(0, 60 * MIB, 50 * 4096):
            file.seek(at)
            file.write(os.urandom(4096))

    code, back, said = traveller.ended("migrate", traveller.name, "--to", "a", *words)
    assert (code, back["outcome"]) == (0, "completed"), (back, said)
    assert (traveller.folder("a") / "data.raw").read_bytes()[: 60 * MIB] == noise
    assert back["bytes_sent"] < first["bytes_sent"] - 50 * MIB
    _is_well(traveller)
    kept_at_b = traveller.lab.answer("-H", "b", "disk", "kept")
    assert {(one["vm"], one["name"]) for one in kept_at_b} == {
        (traveller.name, "data"),
        (traveller.name, "disk0"),
    }
    assert traveller.lab.answer("-H", "a", "disk", "kept") == []
    dropped = traveller.lab.answer("-H", "b", "disk", "kept", "--drop", traveller.name)
    assert all(step["verified"] for step in dropped)
    assert not list(traveller.lab.layout.host("b").state.glob("kept/*/*"))


def test_a_guest_that_writes_elsewhere_meanwhile_moves_on_and_back_and_nothing_is_left_there(
    traveller: Traveller,
) -> None:
    aside = traveller.data.with_name("aside")
    aside.mkdir(exist_ok=True)
    outsource = ("--disks", "all", "--storage-mode", "outsource", "--replacement", str(aside))
    code, outcome, said = traveller.ended("migrate", traveller.name, "--to", "b", *outsource)
    assert (code, outcome["outcome"]) == (0, "completed"), (outcome, said)
    assert not traveller.data.exists()
    assert not list(aside.iterdir())
    assert (traveller.folder("b") / "data.raw").read_bytes()[4 * MIB : 12 * MIB] == traveller.noise
    _is_well(traveller)
    traveller.lab.answer("receipt", "verify", outcome["receipt"])
    code, outcome, said = traveller.ended("migrate", traveller.name, "--to", "a", *outsource[:4])
    assert (code, outcome["outcome"]) == (0, "completed"), (outcome, said)
    assert not traveller.folder("b").exists()
    _is_well(traveller)


@pytest.fixture(scope="module")
def unclean() -> Iterator[Lab]:
    """A lab of its own: that a disk could not be wiped stays in the records of its hosts for good."""
    yield from lab_of(2)


@contextmanager
def broken_at(lab: Lab, bad: int) -> Iterator[Traveller]:
    """A guest of that lab, with a block that cannot be read; afterwards the policy is as it was."""
    before = inspection(lab.layout).read_text()
    try:
        with (
            Observer(lab.layout.observer_ip, bind=lab.inside) as observer,
            on_the_road(lab, observer, bad) as made,
        ):
            yield made
    finally:
        inspection(lab.layout).write_text(before)


def arrived_with_a_placeholder(traveller: Traveller, bad: int, flag: str) -> None:
    there = (traveller.folder("b") / "data.raw").read_bytes()
    expected = bytearray(traveller.noise)
    expected[bad - 4 * MIB : bad - 4 * MIB + 4096] = placeholder(flag, 4096)
    assert there[4 * MIB : 12 * MIB] == expected
    _is_well(traveller)


def fails_the_wipe_alone(traveller: Traveller, receipt: str) -> None:
    """What cannot be read back cannot be shown to be wiped, and the receipt says so."""
    _, told, said = traveller.ended("receipt", "verify", receipt)
    assert [one["name"] for one in told["checks"] if not one["ok"]] == ["wipe"], said


def test_a_disk_with_a_broken_sector_stays_until_it_may_go_with_a_placeholder(unclean: Lab) -> None:
    lab, bad = unclean, 6 * MIB + 5 * 4096
    with broken_at(lab, bad) as traveller:
        words = ("migrate", traveller.name, "--to", "b", "--disks", "all")
        code, outcome, said = traveller.ended(*words)
        assert (code, outcome["error"]["kind"]) == (6, "disk-unreadable"), (outcome, said)
        assert f"disk data cannot be read at bytes {bad} to {bad + 4096}" in outcome["error"]["message"]
        assert outcome["error"]["vm_runs_on"] == "a"
        traveller.leaves_nothing_on("b")
        _is_well(traveller)
        assert lab.answer("flags", "list", "--vm", traveller.name) == []

        inspection(lab.layout).write_text(CHECKS.format("flag"))
        code, outcome, said = traveller.ended(*words)
        assert (code, outcome["outcome"]) == (0, "completed"), (outcome, said)
        (told,) = lab.answer("flags", "list", "--vm", traveller.name)
        assert (told["host"], told["state"]) == ("b", "open")
        arrived_with_a_placeholder(traveller, bad, told["flag"]["id"])
        fails_the_wipe_alone(traveller, outcome["receipt"])


def test_a_disk_with_a_broken_sector_waits_for_a_person_where_the_policy_blocks(unclean: Lab) -> None:
    lab, bad = unclean, 7 * MIB + 9 * 4096
    with broken_at(lab, bad) as traveller:
        inspection(lab.layout).write_text(CHECKS.format("block"))
        words = ("migrate", traveller.name, "--to", "b", "--disks", "all")
        for _ in range(2):  # nothing but a person changes it
            code, outcome, said = traveller.ended(*words)
            assert (code, outcome["error"]["kind"]) == (3, "flagged"), (outcome, said)
            assert outcome["error"]["vm_runs_on"] == "a"
            traveller.leaves_nothing_on("b")
            _is_well(traveller)
            (told,) = lab.answer("flags", "list", "--vm", traveller.name)
            assert (told["host"], told["state"], told["flag"]["kind"]) == ("a", "open", "unreadable-chunk")
            assert (told["flag"]["place"]["disk"], told["flag"]["place"]["offset"]) == ("data", 7 * MIB)

        flag = told["flag"]["id"]
        lab.answer("flags", "resolve", flag, "accept", "--reason", "the guest can do without it")
        code, outcome, said = traveller.ended(*words)
        assert (code, outcome["outcome"]) == (0, "completed"), (outcome, said)
        assert lab.answer("flags", "list", "--vm", traveller.name) == []
        (told,) = lab.answer("flags", "list", "--vm", traveller.name, "--all")
        assert (told["host"], told["state"].split()[0], told["flag"]["id"]) == ("b", "accepted", flag)
        arrived_with_a_placeholder(traveller, bad, flag)
        fails_the_wipe_alone(traveller, outcome["receipt"])


def _is_well(traveller: Traveller) -> None:
    traveller.observer.wait_for_tick(traveller.ip)
    report = traveller.observer.report(traveller.ip)
    assert report["disk"]["errors"] == 0, report
    assert report["disk"]["checks"] > 0
    seen = traveller.observer.judge(traveller.ip)
    assert (seen.reboots, seen.doubled) == (0, 0)


@pytest.mark.parametrize("storage_mode", ["mirror", "outsource"])
def test_a_move_that_is_cancelled_while_disks_are_copied_leaves_them_to_the_guest(
    traveller: Traveller, storage_mode: str
) -> None:
    with traveller.data.open("r+b") as file:
        file.truncate(2048 * MIB)
        for at in range(64, 1024, 64):
            file.seek(at * MIB)
            file.write(os.urandom(64 * MIB))
    words = ["--config", str(traveller.lab.layout.configuration), "migrate", traveller.name, "--to", "b"]
    words += ["--disks", "all", "--storage-mode", storage_mode]
    order = Order([*korora_command(), *words, "--json"])
    try:
        assert order.until_phase("transfer", deadline_s=120) == "transfer"
        order.interrupt()
        ended = order.ended()
    finally:
        order.end()
    assert ended.outcome["outcome"] == "cancelled", ended.outcome
    _is_well(traveller)
    traveller.leaves_nothing_on("b")
    assert traveller.data.exists()
    assert not list(traveller.folder("a").parent.glob("korora-*"))
    assert not (traveller.folder("a").parent / "outsourced.json").exists()
