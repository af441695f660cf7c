"""What a VM has open is told where its definition says something else."""

from __future__ import annotations

import pytest

from korora.agents.integrity.disks.opened import differing
from korora.model.image import Layer

DISK = (Layer("/d.qcow2", "qcow2"), Layer("/base.qcow2", "qcow2"), Layer("/old.raw", "raw"))


def test_what_is_open_as_defined_is_not_told() -> None:
    assert list(differing(DISK, DISK)) == []


@pytest.mark.parametrize(
    ("opened", "word"),
    [
        ((), "'/d.qcow2'"),
        (DISK[:2], "nothing open 2 beneath it where its definition says '/old.raw'"),
        ((*DISK, Layer("/etc/shadow", "raw")), "'/etc/shadow' open 3 beneath it"),
        ((Layer("/e.qcow2", "qcow2"), *DISK[1:]), "'/e.qcow2'"),
        ((DISK[0], Layer("/base.qcow2", "raw"), DISK[2]), "'/base.qcow2' open 1 beneath it as raw"),
        ((Layer("/d.qcow2", "qcow2", "/dev/sda"), *DISK[1:]), "for its data: '/dev/sda'"),
    ],
    ids=["nothing", "less", "more", "another file", "another format", "another file for its data"],
)
def test_what_is_open_otherwise_than_defined_is_told(opened: tuple[Layer, ...], word: str) -> None:
    told = list(differing(DISK, opened))
    assert told
    assert word in told[0]


def test_a_file_for_the_data_may_be_allowed() -> None:
    opened = (Layer("/d.qcow2", "qcow2", "/data.raw"),)
    assert list(differing(DISK[:1], opened, {"/data.raw"})) == []
