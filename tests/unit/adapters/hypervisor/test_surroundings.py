"""What a host has for a VM: digests of files, sizes of disks, images that would open other files."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest

from korora.adapters.hypervisor import surroundings
from korora.errors import RefusedError
from korora.model.vm import Disk


def qcow2(path: Path, features: int, version: int = 3) -> Disk:
    header = struct.pack(">4sI", b"QFI\xfb", version).ljust(72, b"\0") + struct.pack(">Q", features)
    path.write_bytes(header.ljust(512, b"\0"))
    return Disk(str(path), "qcow2")


def test_files_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(b"kernel")
    found = surroundings.file_digests([str(tmp_path / "k"), str(tmp_path / "none"), str(tmp_path)])
    assert found == {str(tmp_path / "k"): "sha256:" + hashlib.sha256(b"kernel").hexdigest()}


def test_a_disks_size_is_its_length(tmp_path: Path) -> None:
    (tmp_path / "d").write_bytes(b"x" * 1234)
    disks = [Disk(str(tmp_path / "d")), Disk(str(tmp_path / "none"))]
    assert surroundings.disk_sizes(disks) == {str(tmp_path / "d"): 1234}


def test_available_memory_is_read_from_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("MemTotal: 100 kB\nMemAvailable:   42 kB\n")
    assert surroundings.memory_available_bytes(tmp_path / "m") == 42 * 1024
    assert surroundings.memory_available_bytes() > 0


def test_an_image_with_its_data_elsewhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError) as caught:
        surroundings.refuse_escaping_images([qcow2(tmp_path / "a", features=4)])
    assert caught.value.kind == "disk-escapes"


def test_other_images_are_for_qemu_to_judge(tmp_path: Path) -> None:
    plain = [qcow2(tmp_path / "a", features=0), qcow2(tmp_path / "b", features=4, version=2)]
    (tmp_path / "short").write_bytes(b"QFI\xfb")
    others = [
        Disk(str(tmp_path / "short"), "qcow2"),
        Disk(str(tmp_path / "none"), "qcow2"),
        Disk("/dev/zero"),
    ]
    surroundings.refuse_escaping_images([*plain, *others])
