"""Images that would open other files are refused before QEMU sees them."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

import pytest

from korora.adapters.hypervisor import images
from korora.adapters.hypervisor.qemu import Qemu
from korora.errors import RefusedError
from korora.model.identity import VmName
from korora.model.vm import Disk, VmDefinition
from korora.ports.hypervisor import Place
from korora.wiring.disk_diffs.journal import beside


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


def test_an_image_to_which_a_diff_was_half_applied_is_refused_with_what_finishes_it(tmp_path: Path) -> None:
    disk = Disk(str(tmp_path / "a"))
    (tmp_path / "b.korora-diff").touch()
    images.refuse_unfinished_images([disk])
    beside(tmp_path / "a").touch()
    with pytest.raises(RefusedError, match=r"a\.korora-diff says so") as caught:
        images.refuse_unfinished_images([disk])
    assert caught.value.kind == "unfinished-apply"
    assert "--in-place" in caught.value.remedy


@pytest.mark.parametrize("at_rest", [True, False])
def test_it_neither_starts_nor_moves_at_rest(tmp_path: Path, at_rest: bool) -> None:
    disk = Disk(str(tmp_path / "a.raw"))
    (tmp_path / "a.raw").write_bytes(bytes(512))
    beside(tmp_path / "a.raw").touch()
    qemu, vm = Qemu(tmp_path / "cache"), VmDefinition(VmName("web"), "0" * 8, 1 << 24, disks=(disk,))

    async def refused() -> None:
        if at_rest:
            await qemu.disks_at_rest([disk], tmp_path, writable=False)
        else:
            await qemu.start(vm, Place(tmp_path / "web", None), incoming=False)

    with pytest.raises(RefusedError) as caught:
        asyncio.run(refused())
    assert caught.value.kind == "unfinished-apply"
