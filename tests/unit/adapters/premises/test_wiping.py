"""Disks that left are overwritten where they had content, read back, and removed."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from korora.adapters.premises.wiping import wiped


def test_a_file_is_overwritten_before_it_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(b"secret" * 1000)
    os.link(path, tmp_path / "other name")  # through which the storage's blocks are seen
    step = wiped(path)
    assert (step.bytes, step.verified) == (6000, True)
    assert not path.exists()
    assert (tmp_path / "other name").read_bytes() == bytes(6000)


def test_holes_stay_holes(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 30)
        file.write(b"secret" * 1000)
    os.link(path, tmp_path / "other name")
    assert wiped(path).bytes < 1 << 20
    assert (tmp_path / "other name").stat().st_blocks * 512 < 1 << 20


def test_it_may_be_repeated(tmp_path: Path) -> None:
    step = wiped(tmp_path / "gone")
    assert (step.bytes, step.verified) == (0, True)


def test_no_link_is_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"x")
    (tmp_path / "disk.raw").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic"):
        wiped(tmp_path / "disk.raw")
    assert precious.read_bytes() == b"x"


def test_a_wiped_file_is_let_go_of_soon(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(b"secret" * 1000)
    wiped(path)
    limit = time.monotonic() + 60
    while any(str(path) in one for one in opened()):
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_a_wiped_device_is_let_go_of_at_once(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"secret" * 1024)
    attached = subprocess.run(["losetup", "-f", "--show", disk], capture_output=True, text=True, check=False)
    if attached.returncode:
        pytest.skip(f"no loop device: {attached.stderr.strip()}")
    device = attached.stdout.strip()
    try:
        step = wiped(Path(device))
        assert device not in opened()
    finally:
        subprocess.run(["losetup", "-d", device], check=True)
    assert (step.bytes, step.verified) == (6144, True)
    assert disk.read_bytes() == bytes(6144)


def opened() -> list[str]:
    """What this process has open."""
    names = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            names.append(str(entry.readlink()))
        except FileNotFoundError:
            continue
    return names
