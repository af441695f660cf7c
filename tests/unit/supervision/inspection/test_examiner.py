"""What an inspection makes for itself in the VM's folder is gone afterwards, whoever ended it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fakes.inspector import FakeInspector
from fakes.journal import MemoryJournal
from korora.errors import ToolError
from korora.model.definition import parse_definition
from korora.model.identity import HostName, VmName
from korora.model.inspection import Check, Disposition
from korora.model.inspection_policy import InspectionPolicy
from korora.ports.clock import SystemClock
from korora.supervision.inspection import dossier
from korora.supervision.inspection.examiner import Examiner, Subject

POLICY = InspectionPolicy(checks=dict.fromkeys(Check, Disposition.REPORT))


def subject(directory: Path) -> Subject:
    path = directory.parent / "disk.raw"
    path.write_bytes(bytes(1 << 20))
    text = f'name = "web"\nmemory = "64M"\n[[disks]]\nname = "disk0"\npath = "{path}"\n'
    return Subject(parse_definition(text, "a test"), directory, None)


def inspected(inspector: FakeInspector, directory: Path) -> None:
    examiner = Examiner(HostName("a"), MemoryJournal(), SystemClock(), inspector, lambda: POLICY)
    asyncio.run(examiner.inspect(subject(directory), lambda _: None))


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
