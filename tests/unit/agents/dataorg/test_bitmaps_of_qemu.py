"""QEMU does with bitmaps what the decision, and the model that it is tried on, take for granted."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fakes.disk_images import qemu_img
from korora.agents.dataorg.bitmaps import (
    Because,
    Bitmap,
    CompareHashes,
    Disk,
    Kept,
    SendRanges,
    Tracking,
    decided,
)
from korora.model.identity import Digest

SIZE = 64 << 20
ROOT = Digest("blake3:" + "1" * 64)


class Qemu:
    """One run, over QMP on its standard streams."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def ask(self, execute: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"execute": execute, "arguments": arguments}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        while True:
            answer = json.loads(self._process.stdout.readline())
            if "return" in answer or "error" in answer:
                assert "return" in answer, answer
                return answer["return"]

    def add(self, name: str, *, persistent: bool = True) -> None:
        self.ask("block-dirty-bitmap-add", node="d", name=name, persistent=persistent)

    def bitmaps(self) -> list[Bitmap]:
        node = next(one for one in self.ask("query-named-block-nodes", flat=True) if one["node-name"] == "d")
        return [
            Bitmap(
                name=one["name"],
                granularity=one["granularity"],
                recording=one["recording"],
                persistent=one["persistent"],
                inconsistent=one.get("inconsistent", False),
            )
            for one in node.get("dirty-bitmaps", [])
        ]

    def quit(self) -> None:
        self.ask("quit")
        self._process.wait(60)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(60)


@contextmanager
def running(image: Path, driver: str) -> Iterator[Qemu]:
    command = ["qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none", "-qmp", "stdio"]
    command += ["-blockdev", f"driver={driver},node-name=d,file.driver=file,file.filename={image}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            qemu = Qemu(process)
            qemu.ask("qmp_capabilities")
            yield qemu
        finally:
            process.kill()


def tracking(*, persistent: bool = True) -> Tracking:
    return Tracking("a", ROOT, SIZE, 2, "1", persistent)


def decision(bitmaps: list[Bitmap], run: str, begun: Tracking) -> object:
    return decided(Kept(ROOT, SIZE), begun, Disk(SIZE, run, bitmaps))


def test_one_that_was_closed_is_there_again_and_one_that_was_not_is_inconsistent(tmp_path: Path) -> None:
    image, begun = tmp_path / "d.qcow2", tracking()
    qemu_img("create", "-f", "qcow2", image, str(SIZE))
    with running(image, "qcow2") as qemu:
        qemu.add(begun.bitmap)
        assert isinstance(decision(qemu.bitmaps(), "1", begun), SendRanges)
        qemu.quit()
    with running(image, "qcow2") as qemu:
        assert isinstance(decision(qemu.bitmaps(), "2", begun), SendRanges)
        qemu.kill()
    with running(image, "qcow2") as qemu:
        assert decision(qemu.bitmaps(), "3", begun) == CompareHashes(Because.INCONSISTENT)
        qemu.quit()
    with running(image, "qcow2") as qemu:
        assert decision(qemu.bitmaps(), "4", begun) == CompareHashes(Because.INCONSISTENT)


def test_one_that_was_added_in_a_run_that_is_killed_is_absent(tmp_path: Path) -> None:
    image, begun = tmp_path / "d.qcow2", tracking()
    qemu_img("create", "-f", "qcow2", image, str(SIZE))
    with running(image, "qcow2") as qemu:
        qemu.add(begun.bitmap)
        qemu.kill()
    with running(image, "qcow2") as qemu:
        assert qemu.bitmaps() == []
        assert decision(qemu.bitmaps(), "2", begun) == CompareHashes(Because.ABSENT)


def test_a_raw_image_keeps_none_and_one_for_a_run_ends_with_it(tmp_path: Path) -> None:
    image, begun = tmp_path / "d.raw", tracking(persistent=False)
    qemu_img("create", "-f", "raw", image, str(SIZE))
    with running(image, "raw") as qemu:
        with pytest.raises(AssertionError, match="persistent"):
            qemu.add(begun.bitmap)
        qemu.add(begun.bitmap, persistent=False)
        assert isinstance(decision(qemu.bitmaps(), "1", begun), SendRanges)
        qemu.quit()
    with running(image, "raw") as qemu:
        assert decision(qemu.bitmaps(), "2", begun) == CompareHashes(Because.ABSENT)


def test_one_that_is_disabled_says_so(tmp_path: Path) -> None:
    image, begun = tmp_path / "d.qcow2", tracking()
    qemu_img("create", "-f", "qcow2", image, str(SIZE))
    with running(image, "qcow2") as qemu:
        qemu.add(begun.bitmap)
        qemu.ask("block-dirty-bitmap-disable", node="d", name=begun.bitmap)
        assert decision(qemu.bitmaps(), "1", begun) == CompareHashes(Because.PAUSED)
