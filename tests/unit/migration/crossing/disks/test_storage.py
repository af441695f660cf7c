"""Which disks move, and where they come to lie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from korora.errors import RefusedError
from korora.migration.crossing.disks.storage import moving, relocated, staying
from korora.model.definition import definition_text, parse_definition
from korora.model.storage import ALL, DiskOrder

VM = parse_definition(
    'name = "web"\nmemory = "64M"\n'
    '[[disks]]\nname = "root"\npath = "/srv/root.qcow2"\nformat = "qcow2"\n'
    '[[disks]]\nname = "data"\npath = "/srv/data.raw"\n'
)


@pytest.mark.parametrize(
    ("asked", "names"),
    [((), []), ((ALL,), ["root", "data"]), (("data",), ["data"]), (("data", "root"), ["root", "data"])],
)
def test_those_move_that_are_named(asked: tuple[str, ...], names: list[str]) -> None:
    assert [disk.name for disk in moving(VM, asked)] == names
    assert {disk.name for disk in staying(VM, names).disks} == {"root", "data"} - set(names)


def test_one_that_is_not_there_is_refused_by_its_name() -> None:
    for refuse in (
        lambda: moving(VM, ("swap",)),
        lambda: relocated(VM, [DiskOrder("swap", "raw", 1, 1)], Path("/vms/web")),
    ):
        with pytest.raises(RefusedError, match="swap") as refused:
            refuse()
        assert refused.value.kind == "no-such-disk"


def test_the_disks_of_an_adopted_vm_stay() -> None:
    with pytest.raises(RefusedError) as refused:
        moving(replace(VM, adopted=True), (ALL,))
    assert refused.value.kind == "disks-hidden"


def test_they_come_to_lie_in_the_vms_own_folder_in_the_format_that_was_asked_for() -> None:
    there = relocated(VM, [DiskOrder("root", "raw", 1 << 30, 1 << 20)], Path("/vms/web"))
    assert [(disk.name, disk.path, disk.format) for disk in there.disks] == [
        ("root", "/vms/web/disks/root.raw", "raw"),
        ("data", "/srv/data.raw", "raw"),
    ]
    assert replace(there, disks=VM.disks) == VM
    assert parse_definition(definition_text(there)) == there
