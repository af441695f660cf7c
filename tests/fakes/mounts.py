"""Volumes that this machine writes to, each in a mount namespace of its own.

A process that leaves the namespace of all, as a sandbox or a network of a lab does, takes a copy of every
mount along, and a volume is unmounted only when the last copy is gone.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_HELD = """
at=$1
shift
"$@" "$at" || exit
echo mounted
read -r _
umount "$at"
"""


@contextmanager
def mounted(image: Path | str, at: Path, options: str = "loop") -> Iterator[Path]:
    """By the kernel; skips where it may not. Everything that was written is in its place afterwards."""
    with _held(at, "mount", "-o", options, str(image)) as root:
        yield root


@contextmanager
def mounted_by_ntfs_3g(image: Path, at: Path) -> Iterator[Path]:
    with _held(at, "ntfs-3g", str(image)) as root:
        yield root


@contextmanager
def _held(at: Path, *mount: str) -> Iterator[Path]:
    at.mkdir()
    command = ["unshare", "--mount", "sh", "-c", _HELD, "sh", str(at), *mount]
    pipe = subprocess.PIPE
    keeper = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert keeper.stdout is not None
    if not keeper.stdout.readline():
        _, said = keeper.communicate(timeout=120)
        pytest.skip(f"{mount[-1]} cannot be mounted to write to it: {said.strip()}")
    try:
        yield Path(f"/proc/{keeper.pid}/root{at.resolve()}")
    finally:
        _, said = keeper.communicate("\n", timeout=120)
        assert keeper.returncode == 0, said
