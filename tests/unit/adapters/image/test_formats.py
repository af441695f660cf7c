"""One content has one root in every format, alone and as an overlay, and damage is an error."""

from __future__ import annotations

import os
import random
import subprocess
import time
from pathlib import Path

import pytest

from fakes.disk_images import MIB, converted, disk_content, measured, qemu_img, root_of
from korora.errors import KororaError
from korora.model.image import Format
from korora.wiring.images import digested, looked_at

CONTENT = disk_content()
KINDS: dict[str, tuple[str, Format, tuple[str, ...]]] = {
    "qcow2": ("a.qcow2", Format.QCOW2, ()),
    "qcow2 of version 2": ("a.qcow2", Format.QCOW2, ("-o", "compat=0.10")),
    "qcow2 by zlib": ("a.qcow2", Format.QCOW2, ("-c",)),
    "qcow2 by zstd": ("a.qcow2", Format.QCOW2, ("-c", "-o", "compression_type=zstd")),
    "qcow2 of subclusters": ("a.qcow2", Format.QCOW2, ("-o", "extended_l2=on,cluster_size=128k")),
    "vmdk sparse": ("a.vmdk", Format.VMDK, ()),
    "vmdk streamOptimized": ("a.vmdk", Format.VMDK, ("-o", "subformat=streamOptimized")),
    "vmdk flat": ("a.vmdk", Format.VMDK, ("-o", "subformat=monolithicFlat")),
    "vmdk split sparse": ("a.vmdk", Format.VMDK, ("-o", "subformat=twoGbMaxExtentSparse")),
    "vmdk split flat": ("a.vmdk", Format.VMDK, ("-o", "subformat=twoGbMaxExtentFlat")),
    "vdi": ("a.vdi", Format.VDI, ()),
    "vdi fixed": ("a.vdi", Format.VDI, ("-o", "static=on")),
    "vhd": ("a.vhd", Format.VHD, ("-o", "force_size=on")),
    "vhd fixed": ("a.vhd", Format.VHD, ("-o", "force_size=on,subformat=fixed")),
    "vhdx": ("a.vhdx", Format.VHDX, ()),
    "vhdx fixed": ("a.vhdx", Format.VHDX, ("-o", "subformat=fixed")),
}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_disk_in_another_format_has_the_same_root(kind: str, raw: Path) -> None:
    name, which, options = KINDS[kind]
    record = measured(converted(raw, name, which, *options))
    assert record.root == root_of(CONTENT)
    assert (record.disks[0].format, record.disks[0].size) == (which, len(CONTENT))


def test_a_split_vmdk_of_several_files_is_one_disk(tmp_path: Path) -> None:
    raw = tmp_path / "disk.raw"
    with raw.open("wb") as file:
        file.truncate(5 << 30)
        file.seek((4 << 30) - 3)
        file.write(b"across")
    split = converted(raw, "s.vmdk", "vmdk", "-o", "subformat=twoGbMaxExtentSparse")
    assert len(list(tmp_path.glob("s-s*.vmdk"))) == 3
    assert measured(split).root == measured(raw).root


def test_a_raw_disk_of_an_odd_size_is_read_up_to_its_sectors_end(tmp_path: Path) -> None:
    path = tmp_path / "odd.raw"
    path.write_bytes(CONTENT[:1000])
    assert measured(path).root == root_of(CONTENT[:1000] + bytes(24))


def test_a_vhd_that_is_rounded_to_its_geometry_is_another_disk(raw: Path) -> None:
    record = measured(converted(raw, "a.vhd", "vpc"))
    assert record.disks[0].size > len(CONTENT)
    assert record.root == root_of(CONTENT + bytes(record.disks[0].size - len(CONTENT)))


# -- overlays ----------------------------------------------------------------------------------------------


def test_an_overlay_is_read_only_with_its_backing_file_allowed(raw: Path) -> None:
    top = raw.with_name("top.qcow2")
    qemu_img("create", "-f", "qcow2", "-b", "disk.raw", "-F", "raw", top)
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 64k", top], check=True, capture_output=True
    )
    with pytest.raises(KororaError) as refused:
        measured(top)
    assert refused.value.kind == "image-refused"
    changed = CONTENT[:MIB] + b"\x07" * 65536 + CONTENT[MIB + 65536 :]
    assert measured(top, None, raw).root == root_of(changed)


def test_a_chain_over_folders_is_read_and_every_file_of_it_must_be_allowed(raw: Path) -> None:
    """The second image's text names its backing file from its own folder."""
    (raw.parent / "sub").mkdir()
    middle, top = raw.parent / "sub" / "middle.qcow2", raw.with_name("top.qcow2")
    lowest = raw.rename(raw.parent / "sub" / "disk.raw")
    qemu_img("create", "-f", "qcow2", "-b", "disk.raw", "-F", "raw", middle)
    qemu_img("create", "-f", "qcow2", "-b", "sub/middle.qcow2", "-F", "qcow2", top)
    assert measured(top, None, middle, lowest).root == root_of(CONTENT)
    with pytest.raises(KororaError, match="of its backing file 1 deep") as refused:
        measured(top, None, middle)
    assert refused.value.kind == "image-refused"


def test_a_chain_with_the_absolute_path_of_an_allowed_file_is_read(raw: Path) -> None:
    top = raw.with_name("top.qcow2")
    qemu_img("create", "-f", "qcow2", "-b", raw, "-F", "raw", top)
    assert measured(top, None, raw).root == root_of(CONTENT)


def test_a_chain_that_ends_in_itself_is_refused(raw: Path) -> None:
    one, other = raw.with_name("one.qcow2"), raw.with_name("other.qcow2")
    qemu_img("create", "-f", "qcow2", "-u", "-b", "other.qcow2", "-F", "qcow2", one, "8M")
    qemu_img("create", "-f", "qcow2", "-u", "-b", "one.qcow2", "-F", "qcow2", other, "8M")
    with pytest.raises(KororaError, match="has no end"):
        measured(one, None, one, other)


# -- damage ------------------------------------------------------------------------------------------------

MUTATIONS = 40
_READ = 64 * MIB


def mutated(image: bytes, chance: random.Random) -> bytes:
    """Cut short, or some bits turned; mostly where the container keeps its tables."""
    if chance.random() < 0.2:
        return image[: chance.randrange(len(image))]
    broken = bytearray(image)
    for _ in range(chance.choice([1, 1, 3, 20])):
        reach = chance.choice([128, 1024, 70_000, 400_000, len(broken)])
        at = chance.randrange(min(reach, len(broken)))
        broken[-1 - at if chance.random() < 0.1 else at] ^= 1 << chance.randrange(8)
    return bytes(broken)


def as_qemu_reads_it(path: Path, which: Format) -> bytes | None:
    """What qemu-img makes of it by itself; None if it does not."""
    out = path.with_name("out.raw")
    out.unlink(missing_ok=True)
    words: list[str | Path] = ["qemu-img", "convert", "-f", which, "-O", "raw", path, out]
    done = subprocess.run(words, check=False, capture_output=True, timeout=60)
    return out.read_bytes() if done.returncode == 0 else None


@pytest.mark.parametrize(
    "kind", ["qcow2", "qcow2 by zlib", "vmdk sparse", "vmdk streamOptimized", "vdi", "vhd", "vhdx"]
)
def test_a_damaged_image_is_an_error_or_just_what_qemu_reads(kind: str, raw: Path) -> None:
    """Larger disks than 64 MiB, as a flipped bit may claim, are looked at and not read: reading is linear."""
    name, which, options = KINDS[kind]
    path = converted(raw, name, which, *options)
    whole, chance = path.read_bytes(), random.Random(f"2026 {kind}")
    roots, errors = 0, 0
    for _ in range(MUTATIONS):
        path.write_bytes(mutated(whole, chance))
        begun = time.monotonic()
        try:
            image = looked_at(path, which)
            if image.disks[0].facts.virtual_size > _READ:
                continue
            root = digested(image, lambda _: None).root
        except KororaError as error:
            assert error.exit_code.value in {2, 3, 5, 6}
            errors += 1
        else:
            content = as_qemu_reads_it(path, which)
            assert content is not None
            assert root == root_of(content)
            roots += 1
        assert time.monotonic() - begun < 60
    assert errors > 0
    assert roots > 0


@pytest.mark.parametrize("keep", [0, 1, 511, 512, 4096, 66_000, -70_000])
@pytest.mark.parametrize("kind", ["qcow2", "qcow2 by zstd", "vmdk sparse", "vdi", "vhd"])
def test_an_image_that_is_cut_short_is_not_read_as_zeros(kind: str, keep: int, raw: Path) -> None:
    name, which, options = KINDS[kind]
    path = converted(raw, name, which, *options)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(KororaError):
        measured(path, which)


@pytest.mark.parametrize("options", [(), ("-o", "compat=0.10"), ("-o", "extended_l2=on,cluster_size=128k")])
def test_a_qcow2_that_is_cut_short_anywhere_is_not_read_as_zeros(options: tuple[str, ...], raw: Path) -> None:
    """Behind the file's end QEMU finds zeros: a first table of them is a disk of nothing."""
    path = converted(raw, "a.qcow2", "qcow2", *options)
    whole = path.read_bytes()
    for keep in [*range(30_000, len(whole), 61_440), len(whole) - 65_536, len(whole) - 512]:
        path.write_bytes(whole[:keep])
        with pytest.raises(KororaError):
            measured(path)


@pytest.mark.parametrize(
    "options", [(), ("preallocation=metadata",), ("cluster_size=512",), ("cluster_size=2M",)]
)
def test_a_qcow2_that_is_new_or_was_written_a_little_is_whole(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-f", "qcow2", *(word for one in options for word in ("-o", one)), path, "8M")
    assert measured(path).root == root_of(bytes(8 * MIB))
    for at in ("1k", "3M", "8191k"):
        written = ["qemu-io", "-f", "qcow2", "-c", f"write -P 7 {at} 512", str(path)]
        subprocess.run(written, check=True, capture_output=True)
        assert measured(path).disks[0].size == 8 * MIB
    qemu_img("snapshot", "-c", "one", path)
    assert measured(path).disks[0].size == 8 * MIB


@pytest.mark.parametrize("keep", [0, 512, 70_000, 300_000, 12 << 20])
def test_a_vhdx_that_is_cut_short_is_not_read_as_zeros(keep: int, raw: Path) -> None:
    path = converted(raw, "a.vhdx", "vhdx")
    os.truncate(path, keep)
    with pytest.raises(KororaError):
        measured(path)


@pytest.mark.parametrize("kind", ["monolithicFlat", "twoGbMaxExtentFlat", "twoGbMaxExtentSparse"])
def test_a_part_that_is_cut_short_is_not_read_as_zeros(kind: str, raw: Path) -> None:
    path = converted(raw, "a.vmdk", "vmdk", "-o", f"subformat={kind}")
    (part,) = raw.parent.glob("a-*.vmdk")
    os.truncate(part, part.stat().st_size - 66_000)
    with pytest.raises(KororaError):
        measured(path)
