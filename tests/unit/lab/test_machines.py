"""The ready-made definitions are what the daemon accepts."""

from pathlib import Path

import pytest

from korora.errors import UsageError
from korora.lab.guest.image import GuestImage
from korora.lab.layout import Layout
from korora.lab.machines import DISK_BYTES, READY_MADE, LabMachine, Workload, write_machine
from korora.model.definition import parse_definition
from korora.model.vm import Firmware

IMAGE = GuestImage(Path("/boot/vmlinuz-x"), Path("/cache/guest.img"))


@pytest.mark.parametrize("machine", READY_MADE, ids=lambda machine: machine.name)
def test_definitions_parse_and_keep_what_was_asked(machine: LabMachine) -> None:
    layout = Layout(Path("/run/lab"))
    definition = parse_definition(machine.definition(layout, IMAGE))
    assert (definition.name, definition.firmware, definition.vtpm) == (machine.name, machine.firmware, True)
    assert definition.secure_boot == (machine.firmware is Firmware.UEFI)
    assert definition.disks[0].path == str(machine.disk_path(layout))
    assert f"korora.ip={machine.ip(layout)}/24" in definition.boot.command_line


def test_machines_differ_in_address_and_mac() -> None:
    layout = Layout(Path("/run/lab"))
    parsed = [parse_definition(machine.definition(layout, IMAGE)) for machine in READY_MADE]
    assert len({nic.mac for definition in parsed for nic in definition.nics}) == len(READY_MADE)


def test_the_disk_is_made_once_and_kept(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for folder in layout.folders(1):
        folder.mkdir(exist_ok=True)
    machine = LabMachine("m", 3, workload=Workload(fill="mixed"))
    write_machine(layout, machine, IMAGE)
    machine.disk_path(layout).write_bytes(b"kept" + bytes(DISK_BYTES - 4))
    write_machine(layout, machine, IMAGE)
    assert machine.disk_path(layout).read_bytes().startswith(b"kept")


def test_names_and_numbers_are_checked() -> None:
    with pytest.raises(UsageError):
        LabMachine("../x", 1)
    with pytest.raises(UsageError):
        LabMachine("x", 251)
