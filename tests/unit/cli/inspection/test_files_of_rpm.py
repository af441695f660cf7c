"""`korora files` over disks with RPM's database: of a root that rpm itself filled, then changed."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes.rpm_tree import FOLDER, rpm_tree
from korora.cli.main import answer

Captured = pytest.CaptureFixture[str]


def ext4(root: Path, image: Path) -> Path:
    with image.open("wb") as file:
        file.truncate(24 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-d", root, image], check=True, capture_output=True, timeout=60)
    return image


def btrfs(root: Path, image: Path) -> Path:
    """Where Fedora has its root: in a subvolume of that name; a folder looks the same from outside."""
    above = root.with_name("above")
    above.mkdir()
    shutil.copytree(root, above / "root", symlinks=True)
    with image.open("wb") as file:
        file.truncate(128 << 20)
    command = ["mkfs.btrfs", "-q", "--rootdir", str(above), str(image)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return image


def verified(image: Path, code: int, capsys: Captured) -> dict[str, Any]:
    assert answer(["files", "verify", str(image), "--json"]) == code
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    return said


@pytest.mark.parametrize(("make", "above"), [(ext4, ""), (btrfs, "/root")])
def test_exactly_what_was_done_to_it_is_told(
    tmp_path: Path, capsys: Captured, make: Callable[[Path, Path], Path], above: str
) -> None:
    root = rpm_tree(tmp_path)
    (root / "usr/bin/tiny").write_text("evil\n")
    (root / "usr/bin/gone").unlink()
    (root / "usr/bin/other").chmod(0o4755)
    (root / "usr/bin/mine").write_text("mine\n")
    (root / "usr/bin/mine").chmod(0o4755)
    (root / "etc/tiny.conf").write_text("my setting\n")
    (root / "etc/optional").unlink()
    said = verified(make(root, tmp_path / "image"), 5, capsys)
    assert (said["complete"], said["packages"]) == (True, {"1": 6})
    assert {(one["finding"], one["path"], one["package"]) for one in said["system"]} == {
        ("changed", f"{above}/usr/bin/tiny", "tiny"),
        ("missing", f"{above}/usr/bin/gone", "tiny"),
        ("privileged", f"{above}/usr/bin/other", "tiny"),
        ("privileged", f"{above}/usr/bin/mine", ""),
        ("configured", f"{above}/etc/tiny.conf", "tiny"),
    }
    assert len(said["system"]) == 5


def test_as_it_was_installed_it_is_well(tmp_path: Path, capsys: Captured) -> None:
    image = ext4(rpm_tree(tmp_path), tmp_path / "image")
    assert answer(["files", "verify", str(image)]) == 0
    assert "6 files of RPM packages: as they were packed" in capsys.readouterr().out


def test_both_kinds_of_packages_are_counted(tmp_path: Path, capsys: Captured) -> None:
    root = rpm_tree(tmp_path)
    info = root / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    (root / "usr/bin/deb").write_bytes(b"")
    (info / "deb.md5sums").write_text("d41d8cd98f00b204e9800998ecf8427e  usr/bin/deb\n")
    assert answer(["files", "verify", str(ext4(root, tmp_path / "image"))]) == 0
    said = capsys.readouterr().out
    assert "1 files of Debian packages: as they were packed" in said
    assert "6 files of RPM packages: as they were packed" in said


def test_a_database_that_cannot_be_read_is_unknown(tmp_path: Path, capsys: Captured) -> None:
    root = rpm_tree(tmp_path)
    for path in (root / FOLDER).iterdir():
        path.unlink()
    (root / FOLDER / "Packages.db").write_bytes(b"RpmP" + bytes(5000))
    said = verified(ext4(root, tmp_path / "image"), 6, capsys)
    assert said["root"] is None
    assert ["ndb" in one["problem"] for one in said["problems"]] == [True]
