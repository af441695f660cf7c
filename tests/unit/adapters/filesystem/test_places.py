"""Where files lie on a disk: the bytes that stand there are those of the file; hostile tables end bounded."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path
from typing import Final

import pytest

from korora.adapters.filesystem.sandboxed import SandboxedFiles
from korora.model.files import Done, Located, Problem, Told, Volume
from korora.model.image import Format, ImageFiles

MIB: Final = 1 << 20
CONTENTS: Final = {name: random.Random(name).randbytes(size) for name, size in
                   {"small": 5000, "large": 3 * MIB + 17, "other": 700_000}.items()}  # fmt: skip
PROTO: Final = """/
0 0
d--755 0 0
one d--755 0 0
  large ---644 0 0 {folder}/large
$
two d--755 0 0
  other ---644 0 0 {folder}/other
  small ---644 0 0 {folder}/small
$
$
"""


def run(*command: str | Path) -> None:
    subprocess.run([*map(str, command)], check=True, capture_output=True, timeout=120)


def blank(path: Path, mebibytes: int) -> Path:
    with path.open("wb") as file:
        file.truncate(mebibytes * MIB)
    return path


def written(folder: Path) -> list[Path]:
    for name, content in CONTENTS.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in CONTENTS]


def ext4(folder: Path) -> Path:
    (folder / "tree").mkdir()
    written(folder / "tree")
    image = blank(folder / "ext4.img", 32)
    run("mkfs.ext4", "-q", "-d", folder / "tree", image)
    return image


def fat(folder: Path) -> Path:
    image = blank(folder / "fat.img", 32)
    run("mkfs.vfat", image)
    run("mcopy", "-i", image, *written(folder), "::")
    return image


def ntfs(folder: Path) -> Path:
    image = blank(folder / "ntfs.img", 32)
    run("mkntfs", "-q", "-F", "-f", image)
    for path in written(folder):
        run("ntfscp", image, path, "/" + path.name)
    return image


def xfs(folder: Path) -> Path:
    """Of several allocation groups, with folders, and so files, in more than one."""
    written(folder)
    (folder / "proto").write_text(PROTO.format(folder=folder))
    image = blank(folder / "xfs.img", 320)
    run("mkfs.xfs", "-q", "-p", folder / "proto", image)
    return image


def btrfs(folder: Path) -> Path:
    (folder / "tree").mkdir()
    written(folder / "tree")
    image = blank(folder / "btrfs.img", 128)
    run("mkfs.btrfs", "-q", "--rootdir", folder / "tree", image)
    return image


def told_of(image: Path) -> list[Told]:
    return list(SandboxedFiles(120.0).locate(ImageFiles(image, Format.RAW)))


def runs_of(told: list[Told]) -> dict[str, list[tuple[int, int]]]:
    found: dict[str, list[tuple[int, int]]] = {}
    for one in told:
        if isinstance(one, Located):
            found.setdefault(one.path.decode().rpartition("/")[2], []).extend(one.runs)
    return found


def assert_they_lie_there(image: Path, told: list[Told]) -> None:
    runs, disk = runs_of(told), image.read_bytes()
    for name, content in CONTENTS.items():
        assert b"".join(disk[at : at + length] for at, length in runs[name])[: len(content)] == content


@pytest.mark.parametrize("make", [btrfs, ext4, fat, ntfs, xfs])
def test_what_stands_where_a_file_lies_is_its_content(tmp_path: Path, make: object) -> None:
    image = make(tmp_path)  # type: ignore[operator]
    told = told_of(image)
    assert not [one for one in told if isinstance(one, Problem)]
    assert isinstance(told[-1], Done)
    assert runs_of(told)[""] == [(0, image.stat().st_size)]
    assert_they_lie_there(image, told)


def test_xfs_is_tried_in_more_than_one_allocation_group(tmp_path: Path) -> None:
    begins = {runs[0][0] // (80 * MIB) for name, runs in runs_of(told_of(xfs(tmp_path))).items() if name}
    assert len(begins) > 1


def test_a_partition_is_told_by_its_place_on_the_disk(tmp_path: Path) -> None:
    inside, disk = ext4(tmp_path), blank(tmp_path / "disk", 64)
    table = b"label: gpt\nstart=2048, size=65536\n"
    subprocess.run(["sfdisk", "-q", disk], input=table, check=True, capture_output=True, timeout=60)
    with disk.open("r+b") as file:
        file.seek(MIB)
        file.write(inside.read_bytes())
    told = told_of(disk)
    assert runs_of(told)[""] == [(MIB, 32 * MIB)]
    assert_they_lie_there(disk, told)


def logical(folder: Path, extents: str) -> Path:
    """A physical volume with a logical one of 32 MiB in these extents of 4 MiB."""
    disk = blank(folder / "lvm.img", 96)
    attached = subprocess.run(["losetup", "-f", "--show", disk], capture_output=True, text=True, check=False)
    if attached.returncode:
        pytest.skip(f"no loop device to make a volume group on: {attached.stderr.strip()}")
    device = attached.stdout.strip()
    only = f'devices{{filter=["a|{device}|","r|.*|"] use_devicesfile=0}}'
    quiet = ("-an", "-Zn", "-Wn", "-y", "-n")
    try:
        for command in (
            ["pvcreate", "-ff", "-y", device],
            ["vgcreate", "korora-places", device],
            ["lvcreate", *quiet, "root", "-l", "8", "korora-places", f"{device}:{extents}"],
        ):
            run("lvm", command[0], "--driverloaded", "n", "--config", only, *command[1:])
    finally:
        run("losetup", "-d", device)
    return disk


def test_a_logical_volume_is_told_by_its_place_on_the_disk(tmp_path: Path) -> None:
    inside, disk = ext4(tmp_path).read_bytes(), logical(tmp_path, "10-17")
    place = MIB + 10 * 4 * MIB
    with disk.open("r+b") as file:
        file.seek(place)
        file.write(inside)
    told = told_of(disk)
    assert runs_of(told)[""] == [(place, 32 * MIB)]
    assert [one.filesystem for one in told if isinstance(one, Volume)] == ["ext4"]
    assert_they_lie_there(disk, told)


def test_a_logical_volume_in_pieces_is_told_in_its_places(tmp_path: Path) -> None:
    told = told_of(logical(tmp_path, "10-13:2-5"))
    assert [one for one in told if isinstance(one, Problem)] == []
    assert sorted(runs_of(told)[""]) == [(MIB + 2 * 4 * MIB, 16 * MIB), (MIB + 10 * 4 * MIB, 16 * MIB)]


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_file_system_tells_of_no_place_outside_of_its_volume(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    image = ext4(tmp_path)
    content = bytearray(image.read_bytes())
    for _ in range(400):
        content[chance.randrange(3 * MIB)] = chance.randrange(256)
    image.write_bytes(content)
    told = told_of(image)
    assert isinstance(told[-1], Done | Problem)
    assert len(told) < 10_000
    for runs in runs_of(told).values():
        assert all(at + length <= len(content) for at, length in runs)
