"""Images that would open other files are refused before QEMU sees them."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.disk_images import qemu_img
from korora.adapters.hypervisor import images
from korora.adapters.hypervisor.qemu import Qemu
from korora.errors import RefusedError
from korora.model.identity import VmName
from korora.model.vm import Backing, Disk, VmDefinition
from korora.ports.hypervisor import Place
from korora.wiring.disk_diffs.journal import beside


def qcow2(path: Path, features: int, version: int = 3) -> Disk:
    header = struct.pack(">4sI", b"QFI\xfb", version).ljust(72, b"\0") + struct.pack(">Q", features)
    path.write_bytes(header.ljust(512, b"\0"))
    return Disk(str(path), "qcow2")


def test_an_image_with_its_data_elsewhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError) as caught:
        images.refuse_escaping_images([qcow2(tmp_path / "a", features=4)])
    assert caught.value.kind == "disk-escapes"


def chain(folder: Path, compat: str = "1.1") -> Disk:
    """top.qcow2 over middle.qcow2 over base.raw, as qemu-img makes them, and as they are defined."""
    (folder / "base.raw").write_bytes(bytes(1 << 20))
    for name, below, form in (("middle.qcow2", "base.raw", "raw"), ("top.qcow2", "middle.qcow2", "qcow2")):
        qemu_img(
            "create", "-q", "-f", "qcow2", "-o", f"compat={compat}", "-b", below, "-F", form, folder / name
        )
    backing = (Backing(str(folder / "middle.qcow2"), "qcow2"), Backing(str(folder / "base.raw"), "raw"))
    return Disk(str(folder / "top.qcow2"), "qcow2", backing=backing)


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
def test_a_chain_that_is_defined_as_it_is_may_be_opened(tmp_path: Path, compat: str) -> None:
    images.refuse_escaping_images([chain(tmp_path, compat)])


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
@pytest.mark.parametrize(
    ("defined", "said"),
    [
        ((), r"middle\.qcow2 \(qcow2\) beneath it, .* says nothing"),
        (("middle",), r"middle\.qcow2 has base\.raw \(raw\) beneath it, .* says nothing"),
        (("base",), r"middle\.qcow2 \(qcow2\) beneath it, .* says .*base\.raw"),
        (("middle", "other"), r"base\.raw \(raw\) beneath it, .* says .*other\.raw"),
        (("middle", "other kind"), r"base\.raw \(raw\) beneath it, .* says .*base\.raw \(qcow2\)"),
    ],
)
def test_a_chain_that_is_not_as_it_is_defined_is_refused(
    tmp_path: Path, compat: str, defined: tuple[str, ...], said: str
) -> None:
    """A guest would see zeros where its disk is in the image beneath."""
    disk = chain(tmp_path, compat)
    middle, base = disk.backing
    known = {
        "middle": middle,
        "base": base,
        "other": replace(base, path=str(tmp_path / "other.raw")),
        "other kind": replace(base, format="qcow2"),
    }
    with pytest.raises(RefusedError, match=said) as caught:
        images.refuse_escaping_images([replace(disk, backing=tuple(known[name] for name in defined))])
    assert caught.value.kind == "backing-differs"
    assert "[[disks.backing]]" in caught.value.remedy


def test_a_chain_that_is_defined_and_not_there_is_refused(tmp_path: Path) -> None:
    disk = replace(qcow2(tmp_path / "a", features=0), backing=(Backing(str(tmp_path / "b"), "raw"),))
    with pytest.raises(RefusedError, match=r"has nothing beneath it, .* says .*/b \(raw\)"):
        images.refuse_escaping_images([disk])


def test_other_images_are_for_qemu_to_judge(tmp_path: Path) -> None:
    plain = [qcow2(tmp_path / "a", features=0), qcow2(tmp_path / "b", features=4, version=2)]
    (tmp_path / "short").write_bytes(b"QFI\xfb")
    others = [
        Disk(str(tmp_path / "short"), "qcow2"),
        Disk(str(tmp_path / "none"), "qcow2"),
        Disk("/dev/zero"),
    ]
    images.refuse_escaping_images([*plain, *others])


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
