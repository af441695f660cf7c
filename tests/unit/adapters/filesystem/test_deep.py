"""Folders in folders, thousands deep, in every file system: told to the bound, and then a problem."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.mounts import mounted, mounted_by_ntfs_3g
from fakes.volumes import blank, files_of, problems_of, run
from korora.adapters.filesystem.sandboxed import SandboxedFiles
from korora.model.files import Told
from korora.model.image import Format, ImageFiles

BOUND = 1024
Make = Callable[[Path, int], Path]


def dig(root: Path, levels: int) -> None:
    """Folders `d` in folders `d`, and a file in the last."""
    held = os.open(root, os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=held)
        below = os.open("d", os.O_DIRECTORY, dir_fd=held)
        os.close(held)
        held = below
    with os.fdopen(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=held), "wb") as file:
        file.write(b"deep")
    os.close(held)


def dug(image: Path, mebibytes: int, make: str, levels: int) -> Path:
    blank(image, mebibytes)
    run(make, "-q", image)
    with mounted(image, image.parent / "mounted") as root:
        dig(root, levels)
    return image


def ext4(folder: Path, levels: int) -> Path:
    return dug(folder / "ext4.raw", 64, "mkfs.ext4", levels)


def xfs(folder: Path, levels: int) -> Path:
    return dug(folder / "xfs.raw", 320, "mkfs.xfs", levels)


def btrfs(folder: Path, levels: int) -> Path:
    return dug(folder / "btrfs.raw", 128, "mkfs.btrfs", levels)


def ntfs(folder: Path, levels: int) -> Path:
    image, at = blank(folder / "ntfs.raw", 64), folder / "mounted"
    run("mkfs.ntfs", "-q", "-F", "-Q", image)
    with mounted_by_ntfs_3g(image, at) as root:
        dig(root, levels)
    return image


def fat(folder: Path, levels: int) -> Path:
    """Entry by entry: mtools make no path that is longer than DOS has."""
    image = blank(folder / "fat.raw", 40)
    run("mkfs.vfat", "-F", "16", image)
    content = bytearray(image.read_bytes())
    (sector, per_cluster, reserved, tables, in_root) = struct.unpack_from("<HBHBH", content, 11)
    (table,) = struct.unpack_from("<H", content, 22)
    root = (reserved + tables * table) * sector
    cluster, data = sector * per_cluster, root + in_root * 32

    def entry(name: bytes, kind: int, first: int, size: int = 0) -> bytes:
        return struct.pack("<11sB14xHI", name.ljust(11), kind, first, size)

    def write(number: int, what: bytes) -> None:
        at = data + (number - 2) * cluster
        content[at : at + len(what)] = what
        for one in range(tables):
            struct.pack_into("<H", content, (reserved + one * table) * sector + 2 * number, 0xFFFF)

    content[root : root + 32] = entry(b"D", 0x10, 2)
    for number in range(2, levels + 2):
        above = number - 1 if number > 2 else 0
        is_last = number == levels + 1
        below = entry(b"F", 0x20, number + 1, 4) if is_last else entry(b"D", 0x10, number + 1)
        write(number, entry(b".", 0x10, number) + entry(b"..", 0x10, above) + below)
    write(levels + 2, b"deep")
    image.write_bytes(content)
    return image


def walked(image: Path) -> list[Told]:
    return list(SandboxedFiles(within_s=300.0).walk(ImageFiles(image, Format.RAW)))


def deepest(told: list[Told]) -> int:
    return max(path.lower().count(b"/d") for path in files_of(told))


ALL: list[Make] = [ext4, xfs, btrfs, ntfs, fat]


@pytest.mark.parametrize("make", ALL)
def test_what_is_a_thousand_folders_deep_is_told(tmp_path: Path, make: Make) -> None:
    told = walked(make(tmp_path, 1000))
    assert problems_of(told) == []
    (file,) = (one for path, one in files_of(told).items() if path.lower() == b"/d" * 1000 + b"/f")
    assert (file.size, file.blake3 is not None) == (4, True)


@pytest.mark.parametrize("make", ALL)
def test_what_is_deeper_than_is_followed_is_a_problem(tmp_path: Path, make: Make) -> None:
    told = walked(make(tmp_path, 1200 if make is ntfs else 2500))  # which ntfs-3g makes slowly
    assert len(problems_of(told)) == 1
    assert "too deep" in problems_of(told)[0].problem
    assert BOUND - 1 <= deepest(told) <= BOUND + 1
