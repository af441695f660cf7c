"""Images that would open other files are refused before QEMU sees them."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from korora.adapters.hypervisor import images
from korora.errors import RefusedError
from korora.model.vm import Disk


def qcow2(path: Path, features: int, version: int = 3) -> Disk:
    header = struct.pack(">4sI", b"QFI\xfb", version).ljust(72, b"\0") + struct.pack(">Q", features)
    path.write_bytes(header.ljust(512, b"\0"))
    return Disk(str(path), "qcow2")


def test_an_image_with_its_data_elsewhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError) as caught:
        images.refuse_escaping_images([qcow2(tmp_path / "a", features=4)])
    assert caught.value.kind == "disk-escapes"


def test_other_images_are_for_qemu_to_judge(tmp_path: Path) -> None:
    plain = [qcow2(tmp_path / "a", features=0), qcow2(tmp_path / "b", features=4, version=2)]
    (tmp_path / "short").write_bytes(b"QFI\xfb")
    others = [
        Disk(str(tmp_path / "short"), "qcow2"),
        Disk(str(tmp_path / "none"), "qcow2"),
        Disk("/dev/zero"),
    ]
    images.refuse_escaping_images([*plain, *others])
