"""Images that would open other files are refused before QEMU sees them."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from korora.adapters.hypervisor import images
from korora.errors import RefusedError
from korora.model.vm import Disk


def qcow2(path: Path, features: int, version: int = 3, backing_at: int = 0) -> Disk:
    header = struct.pack(">4sIQ", b"QFI\xfb", version, backing_at).ljust(72, b"\0") + struct.pack(
        ">Q", features
    )
    path.write_bytes(header.ljust(512, b"\0"))
    return Disk(str(path), "qcow2")


def test_an_image_with_its_data_elsewhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError) as caught:
        images.refuse_escaping_images([qcow2(tmp_path / "a", features=4)], backing_is_cut_off=True)
    assert caught.value.kind == "disk-escapes"


@pytest.mark.parametrize("version", [2, 3])
def test_a_backing_file_is_refused_where_the_command_line_does_not_cut_it_off(
    tmp_path: Path, version: int
) -> None:
    overlay = qcow2(tmp_path / "a", features=0, version=version, backing_at=104)
    with pytest.raises(RefusedError, match="behind it") as caught:
        images.refuse_escaping_images([overlay], backing_is_cut_off=False)
    assert caught.value.kind == "disk-escapes"
    images.refuse_escaping_images([overlay], backing_is_cut_off=True)


def test_other_images_are_for_qemu_to_judge(tmp_path: Path) -> None:
    plain = [qcow2(tmp_path / "a", features=0), qcow2(tmp_path / "b", features=4, version=2)]
    (tmp_path / "short").write_bytes(b"QFI\xfb")
    others = [
        Disk(str(tmp_path / "short"), "qcow2"),
        Disk(str(tmp_path / "none"), "qcow2"),
        Disk("/dev/zero"),
    ]
    images.refuse_escaping_images([*plain, *others], backing_is_cut_off=False)
