"""What a real QEMU has open for a disk, as its own block graph has it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from korora.adapters.hypervisor.qmp import Qmp
from korora.adapters.hypervisor.snapshot.layers import layers_of
from korora.model.image import Layer

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]
FRAME = ("qemu-system-x86_64", "-M", "none", "-accel", "tcg", "-nodefaults", "-display", "none", "-S")
Ask = Callable[..., tuple[Layer, ...]]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """What lies from a node down, in a QEMU with these words, where `@` is the folder."""

    async def asked(node: str, words: str) -> tuple[Layer, ...]:
        given = [word.replace("@", f"{tmp_path}/") for word in words.split()]
        command = [*FRAME, "-qmp", f"unix:{tmp_path}/qmp,server=on,wait=on", *given]
        process = started(command)
        try:
            qmp = await Qmp.connect(tmp_path / "qmp", 60, lambda: process.poll() is None)
            found = await layers_of(qmp, node)
            await qmp.close()
            return found
        finally:
            process.kill()
            process.wait()

    (tmp_path / "a").write_bytes(bytes(1 << 20))
    return lambda node, words: asyncio.run(asked(node, words))


def started(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.DEVNULL)


def make(path: Path, *words: str) -> None:
    command = ["qemu-img", "create", "-q", "-f", "qcow2", *words, str(path), "1M"]
    subprocess.run(command, check=True, timeout=60, cwd=path.parent)


def test_a_raw_disk_is_one_image(ask: Ask, tmp_path: Path) -> None:
    found = ask("n", "-blockdev driver=raw,node-name=n,file.driver=file,file.filename=@a")
    assert found == (Layer(str(tmp_path / "a"), "raw"),)


def test_a_file_that_a_device_uses_as_it_is_is_raw(ask: Ask, tmp_path: Path) -> None:
    found = ask("n", "-blockdev driver=file,node-name=n,filename=@a")
    assert found == (Layer(str(tmp_path / "a"), "raw"),)


def test_what_lies_beneath_is_named_with_the_format_it_is_open_as(ask: Ask, tmp_path: Path) -> None:
    make(tmp_path / "low", "-b", "a", "-F", "raw")
    make(tmp_path / "over", "-b", "low", "-F", "qcow2")
    found = ask("n", "-blockdev driver=qcow2,node-name=n,file.driver=file,file.filename=@over")
    paths = [str(tmp_path / name) for name in ("over", "low", "a")]
    assert found == tuple(map(Layer, paths, ("qcow2", "qcow2", "raw")))


def test_a_qcow2_that_is_open_as_raw_is_told_as_raw(ask: Ask, tmp_path: Path) -> None:
    make(tmp_path / "over", "-b", "a", "-F", "raw")
    found = ask("n", "-blockdev driver=raw,node-name=n,file.driver=file,file.filename=@over")
    assert found == (Layer(str(tmp_path / "over"), "raw"),)


def test_filters_are_no_images(ask: Ask, tmp_path: Path) -> None:
    slow = "-object throttle-group,id=g -blockdev driver=raw,node-name=m,file.driver=file,file.filename=@a"
    over = "-blockdev driver=throttle,node-name=t,throttle-group=g,file=m"
    found = ask("c", f"{slow} {over} -blockdev driver=copy-on-read,node-name=c,file=t")
    assert found == (Layer(str(tmp_path / "a"), "raw"),)


def test_another_file_for_the_data_is_told(ask: Ask, tmp_path: Path) -> None:
    make(tmp_path / "head", "-o", f"data_file={tmp_path}/data.raw")
    found = ask("n", "-blockdev driver=qcow2,node-name=n,file.driver=file,file.filename=@head")
    assert found == (Layer(str(tmp_path / "head"), "qcow2", str(tmp_path / "data.raw")),)


def test_what_korora_lays_over_a_disk_while_it_moves_is_not_the_disk(ask: Ask, tmp_path: Path) -> None:
    make(tmp_path / "over")
    disk = "-blockdev driver=raw,node-name=n,file.driver=file,file.filename=@a"
    over = "-blockdev driver=qcow2,node-name=korora-over-0,backing=n,file.driver=file,file.filename=@over"
    assert ask("korora-over-0", f"{disk} {over}") == (Layer(str(tmp_path / "a"), "raw"),)
