"""What an inspection makes for itself in the VM's folder is gone afterwards, whoever ended it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from fakes.inspector import FakeInspector
from fakes.journal import MemoryJournal
from korora.errors import ToolError
from korora.model.definition import parse_definition
from korora.model.identity import HostName, VmName
from korora.model.image import Layer, NbdExport
from korora.model.inspection import Check, Disposition, Examined
from korora.model.inspection_policy import InspectionPolicy
from korora.ports.clock import SystemClock
from korora.ports.hypervisor import Machine, Place
from korora.ports.inspector import DiskSource, Order, Told
from korora.supervision.inspection import dossier
from korora.supervision.inspection.examiner import Examiner, Subject
from korora.supervision.live import LiveVm

POLICY = InspectionPolicy(checks=dict.fromkeys(Check, Disposition.REPORT))


class RunningMachine:
    """Of a live VM what an inspection asks for."""

    def __init__(self, exports: dict[str, NbdExport]) -> None:
        self._exports = exports

    @asynccontextmanager
    async def disks_at_one_moment(self, scratch: Path) -> AsyncIterator[dict[str, NbdExport]]:
        yield self._exports


class BlindInspector(FakeInspector):
    """Keeps the order, and reads nothing."""

    async def inspect(self, order: Order, told: Told) -> Examined:
        self.orders.append(order)
        return Examined(looked=())


def ordered(directory: Path, exports: dict[str, NbdExport], **changed: object) -> dict[str, DiskSource]:
    """The disks that are looked at of a running VM that shows these."""
    directory.mkdir()
    stopped = subject(directory)
    machine = cast(Machine, RunningMachine(exports))
    definition = replace(stopped.definition, **changed)  # type: ignore[arg-type]
    live = LiveVm(definition, machine, None, Place(directory, None))
    inspector = BlindInspector()
    inspected(inspector, directory, Subject(definition, directory, live))
    return {disk.name: disk for disk in inspector.orders[0].disks}


def subject(directory: Path) -> Subject:
    path = directory.parent / "disk.raw"
    path.write_bytes(bytes(1 << 20))
    text = f'name = "web"\nmemory = "64M"\n[[disks]]\nname = "disk0"\npath = "{path}"\n'
    return Subject(parse_definition(text, "a test"), directory, None)


def inspected(inspector: FakeInspector, directory: Path, vm: Subject | None = None) -> None:
    examiner = Examiner(HostName("a"), MemoryJournal(), SystemClock(), inspector, lambda: POLICY)
    asyncio.run(examiner.inspect(vm or subject(directory), lambda _: None))


def test_what_a_daemon_left_that_ended_while_it_looked_is_removed(tmp_path: Path) -> None:
    directory = tmp_path / "web"
    left = directory / "inspection-abc"
    left.mkdir(parents=True)
    (left / "old-0.qcow2").write_bytes(bytes(1 << 20))
    inspected(FakeInspector(), directory)
    assert [path.name for path in directory.iterdir()] == [dossier.folder(directory).name]
    assert dossier.read_report(directory) is not None


def test_an_inspection_that_fails_leaves_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "web"
    directory.mkdir()
    inspector = FakeInspector()
    inspector.error = ToolError("it ended", kind="inspector")
    with pytest.raises(ToolError):
        inspected(inspector, directory)
    assert not list(directory.iterdir())
    assert dossier.read_report(directory) is None
    assert VmName("web") == inspector.orders[0].vm


def test_a_running_vms_disk_is_looked_at_with_what_its_definition_says_and_what_qemu_has_open(
    tmp_path: Path,
) -> None:
    opened = (Layer("/elsewhere", "raw"),)
    disks = ordered(tmp_path / "web", {"disk0": NbdExport(Path("/nbd"), "disk0", layers=opened)})
    path = str(tmp_path / "disk.raw")
    assert disks["disk0"] == DiskSource(
        name="disk0", format="raw", path=path, running=True, socket="/nbd", export="disk0", opened=opened
    )


def test_a_disk_that_a_running_vm_has_beside_its_definition_has_no_file_to_be_held_against(
    tmp_path: Path,
) -> None:
    exports = {name: NbdExport(Path("/nbd"), name) for name in ("usb", "disk0")}
    disks = ordered(tmp_path / "web", exports)
    assert (disks["usb"].path, disks["usb"].running, disks["usb"].socket) == ("", True, "/nbd")


def test_a_disk_that_a_running_vm_does_not_show_is_ordered_all_the_same(tmp_path: Path) -> None:
    disks = ordered(tmp_path / "web", {})
    assert (disks["disk0"].running, disks["disk0"].socket) == (True, "")


def test_what_an_adopted_vm_does_not_show_may_be_a_removable_medium_and_is_no_disk(tmp_path: Path) -> None:
    assert ordered(tmp_path / "web", {}, adopted=True) == {}
