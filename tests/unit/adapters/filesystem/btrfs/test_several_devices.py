"""A btrfs of several devices is unknown, by its reason; nothing of it is told from one of them alone."""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import google_crc32c
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.mounts import mounted
from fakes.scanner import MemoryScanner
from korora.adapters.filesystem.sandboxed import SandboxedFiles
from korora.agents.integrity.malware.examination import Examination
from korora.model.files import FileRecord, Problem, Told, Volume
from korora.model.image import Format, ImageFiles
from korora.model.scan import Rule
from korora.wiring.files_inside import FilesInside
from korora.wiring.image_files import read_from
from korora.wiring.scanning import Engines

MIB: Final = 1 << 20
SUPERBLOCK: Final = 64 << 10
COUNT_AT: Final = 136
PROFILES: Final = [("single", "raid1"), ("single", "dup"), ("raid0", "raid1"), ("raid1", "raid1")]


def run(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True, timeout=120)
    return done.stdout


def blank(folder: Path, count: int) -> list[Path]:
    images = [folder / f"{number}.img" for number in range(count)]
    for image in images:
        with image.open("wb") as file:
            file.truncate(160 * MIB)
    return images


def walked(image: Path) -> list[Told]:
    return list(SandboxedFiles(120.0).walk(ImageFiles(image, Format.RAW)))


def problems(told: list[Told]) -> list[str]:
    return [one.problem for one in told if isinstance(one, Problem)]


@given(st.sampled_from(PROFILES), st.integers(2, 4))
@settings(deadline=None, max_examples=6)
def test_each_of_its_devices_is_unknown_with_the_reason(
    tmp_path_factory: pytest.TempPathFactory, profiles: tuple[str, str], count: int
) -> None:
    images = blank(tmp_path_factory.mktemp("several"), count)
    run("mkfs.btrfs", "-q", "-d", profiles[0], "-m", profiles[1], *images)
    for image in images:
        told = walked(image)
        assert [(one.filesystem, one.files) for one in told if isinstance(one, Volume)] == [("btrfs", False)]
        assert problems(told) == [f"it lies on {count} devices, which are not put together"]
        assert not [one for one in told if isinstance(one, FileRecord)]
        assert read_from(told, lambda _: None).digest.root() is None


def test_a_scan_of_one_of_its_devices_is_unread_and_not_clean(tmp_path: Path) -> None:
    images = blank(tmp_path, 2)
    run("mkfs.btrfs", "-q", "-d", "raid1", "-m", "raid1", *images)
    engines = Engines(Rule.ANY, (), (), Examination([MemoryScanner(b"needle")]))
    inside = FilesInside(ImageFiles(images[0], Format.RAW), engines, contents=(), digests=False)
    assert list(inside.look()) == []
    assert [one.problem for one in inside.unread()] == ["it lies on 2 devices, which are not put together"]


@contextmanager
def attached(images: list[Path]) -> Iterator[list[str]]:
    devices: list[str] = []
    try:
        for image in images:
            done = subprocess.run(
                ["losetup", "-f", "--show", image], capture_output=True, text=True, check=False
            )
            if done.returncode:
                pytest.skip(f"no loop device: {done.stderr.strip()}")
            devices.append(done.stdout.strip())
        yield devices
    finally:
        for device in devices:
            run("losetup", "-d", device)


@pytest.mark.parametrize("profiles", PROFILES)
def test_what_lies_about_its_devices_is_read_only_as_far_as_it_is_there(
    tmp_path: Path, profiles: tuple[str, str]
) -> None:
    """A superblock that claims to be of one device, with its checksum: a guest can write that."""
    chance = random.Random(4)
    contents = {f"/{number}".encode(): chance.randbytes(chance.randrange(2 * MIB)) for number in range(24)}
    images = blank(tmp_path, 2)
    with attached(images) as devices:
        run("mkfs.btrfs", "-q", "-f", "-d", profiles[0], "-m", profiles[1], *devices)
        both = ",".join(f"device={device}" for device in devices)
        with mounted(devices[0], tmp_path / "mnt", both) as root:
            for path, content in contents.items():
                (root / path[1:].decode()).write_bytes(content)
    for image in images:
        assert problems(walked(image)) == ["it lies on 2 devices, which are not put together"]
        with image.open("r+b") as file:
            file.seek(SUPERBLOCK)
            block = bytearray(file.read(4096))
            struct.pack_into("<Q", block, COUNT_AT, 1)
            struct.pack_into("<I", block, 0, google_crc32c.value(bytes(block[32:])))
            file.seek(SUPERBLOCK)
            file.write(block)
        told = walked(image)
        read = {one.path: one for one in told if isinstance(one, FileRecord) and one.kind == "file"}
        for path, one in read.items():
            assert one.problem or one.blake3 == blake3(contents[path]).hexdigest()
        assert problems(told) or read.keys() == contents.keys()
