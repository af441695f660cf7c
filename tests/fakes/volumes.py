"""File systems in memory, walked without a sandbox: for images that a test changes byte by byte."""

from __future__ import annotations

import subprocess
from pathlib import Path
from time import monotonic

from korora.adapters.filesystem.disk import Disk
from korora.adapters.filesystem.walker import told_of
from korora.model.files import FileRecord, Problem, Told

MIB = 1 << 20


def run(*command: str | Path) -> str:
    done = subprocess.run([*command], check=True, capture_output=True, timeout=120)
    return done.stdout.decode("utf-8", "replace")


def blank(image: Path, mebibytes: int) -> Path:
    with image.open("wb") as file:
        file.truncate(mebibytes * MIB)
    return image


def at_one_moment(image: Path) -> bytes:
    """A disk while it is mounted: two readings that are the same say how all of it was in between."""
    until = monotonic() + 300
    before = image.read_bytes()
    while (now := image.read_bytes()) != before:
        assert monotonic() < until, f"{image.name} is written to without end"
        before = now
    return now


def walked(content: bytes) -> list[Told]:
    disk = Disk(lambda at, length: bytes(memoryview(content)[at : at + length]), len(content))
    return list(told_of(disk, ()))


def files_of(told: list[Told]) -> dict[bytes, FileRecord]:
    found = [one for one in told if isinstance(one, FileRecord)]
    named = {one.path: one for one in found}
    assert len(named) == len(found), "two files have one path"
    return named


def problems_of(told: list[Told]) -> list[Problem]:
    return [one for one in told if isinstance(one, Problem)]
