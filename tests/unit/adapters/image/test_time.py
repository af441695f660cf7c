"""Nothing waits for ever: a QEMU that does not answer is a failed tool, and is gone afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from korora.adapters.image import export, nbd, qemu_nbd
from korora.adapters.image.qemu_nbd import QemuImages
from korora.errors import ToolError
from korora.model.image import Format, ImageFiles, Slice


def descendants(pid: int) -> set[int]:
    """Children, and theirs."""
    found: set[int] = set()
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, listed.read_text().split()):
            found |= {child} | descendants(child)
    return found


@pytest.fixture
def disk(tmp_path: Path) -> ImageFiles:
    path = tmp_path / "disk.raw"
    path.write_bytes(b"x" * (4 << 20))
    return ImageFiles(path, Format.RAW, Slice(0, 4 << 20))  # of a part of a file QEMU reads every byte


def test_a_qemu_that_stands_still_is_given_up_and_killed(
    disk: ImageFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "ANSWERS_WITHIN_S", 1.0)
    before, begun = descendants(os.getpid()), time.monotonic()
    with QemuImages().open(disk) as opened:
        running = descendants(os.getpid()) - before
        assert len(running) > 1
        for one in running:
            os.kill(one, signal.SIGSTOP)
        with pytest.raises(ToolError) as failed:
            list(opened.each([(0, 1 << 20)], bytes))
        assert failed.value.kind == "image-timeout"
        with pytest.raises(ToolError) as failed:
            list(opened.extents())
        assert failed.value.kind == "image-timeout"
    assert not any(alive(one) for one in running)
    assert time.monotonic() - begun < 30


def test_an_image_that_was_read_is_unlocked(disk: ImageFiles) -> None:
    for _ in range(10):
        with QemuImages().open(disk):
            pass
        written = ["qemu-io", "-f", "raw", "-c", "write 0 512", str(disk.path)]
        assert subprocess.run(written, check=False, capture_output=True).returncode == 0


def alive(pid: int) -> bool:
    """Not a process that ended and only waits for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_look_that_takes_too_long_is_given_up(disk: ImageFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu_nbd, "STARTS_WITHIN_S", 0.0)
    with pytest.raises(ToolError) as failed:
        QemuImages().describe(disk)
    assert failed.value.kind == "image-timeout"
    with pytest.raises(ToolError) as failed, QemuImages().open(disk):
        raise AssertionError("it was opened")
    assert failed.value.kind == "image-timeout"


def test_without_libnbd_the_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "nbd", raising=False)
    monkeypatch.setattr(nbd, "_SYSTEM", tmp_path)
    with pytest.raises(ToolError, match="libnbd") as failed:
        nbd.library()
    assert "python3-libnbd" in failed.value.remedy
