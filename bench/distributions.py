"""Disks of VMs of one distribution, which share files and not the places where these lie.

Two ways: roots that were made apart, each in a file system of its own; and file systems that were grown from
copies of one template. Limit: Debian and ext4; without `debootstrap` parts of this machine's /usr stand in.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MIB: Final = 1 << 20
BASE: Final = ()
FIRST: Final = ("nginx-light", "openssh-server", "python3-minimal")
SECOND: Final = ("openssh-server", "perl", "postgresql-client-15", "vim-tiny")
_STAND_INS: Final = {
    BASE: ("doc/base-files", "perl/5.36.0", "zoneinfo"),
    FIRST: ("doc/base-files", "perl/5.36.0", "zoneinfo", "locale"),
    SECOND: ("perl/5.36.0", "zoneinfo", "doc"),
}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two disks; the second comes to where the first is."""

    called: str
    first: Path
    second: Path


def pairs(folder: Path, *, small: bool) -> tuple[list[Pair], str]:
    """The pairs, and what they were made of."""
    trees, called = _trees(folder, small=small)
    size = 2 * max(_size_of(tree) for tree in trees) + 64 * MIB
    base, first, second = (
        _disk_of(folder / f"{name}.img", tree, size) for name, tree in zip("abc", trees, strict=True)
    )
    made = [Pair("own file systems", first, second)]
    grown = [_grown(base, folder / f"grown-{tree.name}.img", tree, folder / "mnt") for tree in trees[1:]]
    if None not in grown:
        made.append(Pair("one template", *(path for path in grown if path is not None)))
    return made, called


def _trees(folder: Path, *, small: bool) -> tuple[list[Path], str]:
    wanted = (BASE, FIRST, SECOND)
    if not small and shutil.which("debootstrap"):
        trees = [_bootstrapped(folder, number, packages) for number, packages in enumerate(wanted)]
        if all(trees):
            return [tree for tree in trees if tree is not None], (
                f"debootstrap --variant=minbase bookworm: {', '.join(FIRST)}, then {', '.join(SECOND)}"
            )
    trees = [
        _copied(folder / f"stand-in-{number}", _STAND_INS[packages]) for number, packages in enumerate(wanted)
    ]
    return [tree for tree in trees if tree is not None], "parts of /usr/share, for want of a distribution"


def _bootstrapped(folder: Path, number: int, packages: tuple[str, ...]) -> Path | None:
    cache, root = folder / "cache", folder / f"root-{number}"
    cache.mkdir(exist_ok=True)
    command = ["debootstrap", f"--cache-dir={cache}", "--variant=minbase"]
    if packages:
        command.append("--include=" + ",".join(packages))
    command += ["bookworm", str(root)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=1800)
    if done.returncode:
        shutil.rmtree(root, ignore_errors=True)
        return None
    shutil.rmtree(root / "var/cache/apt/archives", ignore_errors=True)
    return root


def _copied(root: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        source = Path("/usr/share") / name
        if source.is_dir():
            shutil.copytree(source, root / name, symlinks=True)
    return root


def _disk_of(disk: Path, tree: Path, size: int) -> Path:
    with disk.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, disk], check=True)
    return disk


def _grown(base: Path, disk: Path, tree: Path, mount: Path) -> Path | None:
    """A copy of the template with what it lacks of the tree; None where nothing can be mounted."""
    subprocess.run(["cp", "--sparse=always", base, disk], check=True)
    mount.mkdir(exist_ok=True)
    if (
        os.geteuid()
        or subprocess.run(["mount", "-o", "loop", disk, mount], capture_output=True, check=False).returncode
    ):
        return None
    try:
        subprocess.run(["cp", "-au", f"{tree}/.", mount], check=True)
    finally:
        subprocess.run(["umount", mount], check=True)
    return disk


def _size_of(tree: Path) -> int:
    return sum(path.lstat().st_size for path in tree.rglob("*"))
