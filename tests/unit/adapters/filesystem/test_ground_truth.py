"""Disks that others made have the files that others read on them: Debian's samples."""

from __future__ import annotations

import hashlib
import lzma
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from korora.adapters.filesystem.sandboxed import SandboxedFiles
from korora.model.files import Beside, Done, FileRecord, Problem, Told
from korora.model.image import Format, ImageFiles

SAMPLES: Final = Path("/usr/share/forensics-samples")
ORIGINALS: Final = SAMPLES / "original-files"
START: Final = 1 << 20
"""Of the one partition of each sample."""
KEPT: Final = sorted(
    one for one in ORIGINALS.rglob("*") if one.is_file() and not one.parent.name.endswith("2")
)
"""What the samples' maker copied to them and did not delete again."""


def unpacked(name: str, folder: Path) -> Path:
    image = folder / f"{name}.img"
    with lzma.open(SAMPLES / f"fs.{name}.xz") as packed, image.open("wb") as file:
        shutil.copyfileobj(packed, file, 1 << 20)
    return image


def walked(image: Path) -> list[Told]:
    asked = [Beside("sha256", b"/")]
    return list(SandboxedFiles(within_s=120.0).walk(ImageFiles(image, Format.RAW), beside=asked))


def digests(told: list[Told]) -> dict[str, str | None]:
    return {
        one.path.decode(): one.sha256 for one in told if isinstance(one, FileRecord) and one.kind == "file"
    }


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def output(*command: str | Path) -> bytes:
    done = subprocess.run([*map(str, command)], check=True, capture_output=True, timeout=60)
    return done.stdout


def read_by_others(name: str, image: Path, volume: Path, path: str) -> bytes | None:
    """By the tools of its file system; of exFAT there is none that reads without mounting."""
    match name:
        case "ext4":
            return output("debugfs", "-R", f'cat "{path}"', f"{image}?offset={START}")
        case "vfat":
            return output("mcopy", "-n", "-i", f"{image}@@{START}", f"::{path}", "-")
        case "ntfs":
            return output("ntfscat", "-f", volume, path)
        case _:
            return None


@pytest.mark.parametrize("name", ["ext4", "vfat", "exfat", "ntfs"])
def test_a_sample_has_what_was_copied_to_it_and_what_other_tools_read_on_it(
    name: str, tmp_path: Path
) -> None:
    image, volume = unpacked(name, tmp_path), tmp_path / "volume"
    with image.open("rb") as whole, volume.open("wb") as part:
        whole.seek(START)
        shutil.copyfileobj(whole, part, 1 << 20)
    told = walked(image)
    assert [one for one in told if isinstance(one, Problem)] == []
    found = digests(told)
    for original in KEPT:
        path = f"/{original.relative_to(ORIGINALS)}"
        if original.suffix != ".png":  # Debian's build takes the time out of these
            assert found[path] == sha256(original.read_bytes()), path
        read = read_by_others(name, image, volume, path)
        assert read is None or found[path] == sha256(read), path
    assert len(KEPT) > 15
    there = {path for path in found if "$" not in path}
    assert there == {f"/{original.relative_to(ORIGINALS)}" for original in KEPT}


def test_a_sample_of_several_file_systems_is_told_but_for_the_one_that_is_larger_than_its_partition(
    tmp_path: Path,
) -> None:
    """Linux mounts that one neither: its superblock counts more blocks than the partition has."""
    told = walked(unpacked("multiple", tmp_path))
    assert isinstance(told[-1], Done)
    files = [one for one in told if isinstance(one, FileRecord) and one.kind == "file"]
    for original in sorted((SAMPLES / "original-multiple").iterdir()):
        having = {one.volume for one in files if one.sha256 == sha256(original.read_bytes())}
        assert having == {1, 3, 4}, original
    assert [one.where for one in told if isinstance(one, Problem)] == ["volume 2 (ext)"]
