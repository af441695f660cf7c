"""Writing through QEMU keeps images sparse, closes them, and reaches no other file."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fakes.disk_images import MIB, qemu_img
from korora.adapters.image import nbd
from korora.adapters.image.qemu_nbd import QemuImages
from korora.adapters.image.qemu_writer import QemuImageWriter
from korora.adapters.image.writable import WritableExport
from korora.errors import KororaError, ToolError
from korora.model.image import Format, ImageFiles
from korora.ports.image_writer import WritableImage

NOISE = random.Random(7).randbytes(MIB)


def room_of(path: Path) -> int:
    return path.stat().st_blocks * 512


@pytest.mark.parametrize("which", [Format.RAW, Format.QCOW2])
def test_an_image_takes_the_room_of_what_is_in_it(which: Format, tmp_path: Path) -> None:
    image = ImageFiles(tmp_path / "disk", which)
    QemuImageWriter().create(image, 1 << 40)
    with QemuImageWriter().open(image) as opened:
        opened.put(1 << 39, NOISE)
        opened.zero(1 << 38, 1 << 30)
        opened.put(MIB, NOISE)
    assert room_of(image.path) < 4 * MIB
    with QemuImageWriter().open(image) as opened:
        opened.zero(MIB, MIB)
    assert room_of(image.path) < 3 * MIB
    assert image.path.stat().st_mode & 0o777 == 0o600


def test_whoever_leaves_has_written_all_that_was_put(tmp_path: Path) -> None:
    """Behind a server that takes its time."""
    (tmp_path / "disk").write_bytes(bytes(4 * MIB))
    ready = tmp_path / "ready"
    words = ["nbdkit", "-f", "-U", "nbd", "-P", "ready", "--filter=delay", "file", "disk", "wdelay=300ms"]
    with subprocess.Popen(words, cwd=tmp_path) as server:
        try:
            while not ready.exists():
                assert server.poll() is None
                time.sleep(0.02)
            handle = nbd.library().NBD()
            handle.connect_unix(str(tmp_path / "nbd"))
            there = WritableExport([handle])
            there.put(MIB, NOISE)
            there.zero(0, MIB)
            there.leave()
            assert (tmp_path / "disk").read_bytes() == bytes(MIB) + NOISE + bytes(2 * MIB)
        finally:
            server.terminate()


def test_a_qcow2_is_closed_in_good_order(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    QemuImageWriter().create(ImageFiles(path, Format.QCOW2), 16 * MIB)
    qemu_img("bitmap", "--add", "-f", "qcow2", path, "tracked")
    with QemuImageWriter().open(ImageFiles(path, Format.QCOW2)) as opened:
        opened.put(MIB, NOISE)
    told = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", path]))
    # A bitmap that was not stored on closing is in use for ever.
    assert told["format-specific"]["data"]["bitmaps"][0]["flags"] == ["auto"]
    qemu_img("check", path)


def test_an_image_that_somebody_else_writes_is_not_written(tmp_path: Path) -> None:
    image = ImageFiles(tmp_path / "disk", Format.RAW)
    QemuImageWriter().create(image, MIB)
    with QemuImageWriter().open(image), pytest.raises(ToolError) as failed, QemuImageWriter().open(image):
        pass
    assert failed.value.kind == "image-in-use"
    with running_vm(image.path), pytest.raises(ToolError) as failed, QemuImageWriter().open(image):
        pass
    assert failed.value.kind == "image-in-use"
    with QemuImageWriter().open(image) as opened:
        opened.put(0, NOISE)


@contextmanager
def running_vm(disk: Path) -> Iterator[None]:
    """That has the disk for its own."""
    command = ["qemu-system-x86_64", "-accel", "tcg", "-m", "64", "-nodefaults", "-display", "none", "-S"]
    command += ["-blockdev", f"driver=raw,node-name=d,file.driver=file,file.filename={disk}"]
    command += ["-device", "virtio-blk-pci,drive=d", "-qmp", "stdio"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()  # it greets before it has its disks, and answers after
        process.stdin.write(b'{"execute": "qmp_capabilities"}\n')
        process.stdin.flush()
        assert b"return" in process.stdout.readline()
        yield
    finally:
        process.kill()
        process.communicate()


def test_a_backing_file_is_read_and_never_written(tmp_path: Path) -> None:
    below, top = tmp_path / "below.raw", tmp_path / "top.qcow2"
    below.write_bytes(NOISE * 4)
    qemu_img("create", "-f", "qcow2", "-b", "below.raw", "-F", "raw", top)
    with pytest.raises(KororaError), QemuImageWriter().open(ImageFiles(top, Format.QCOW2)):
        pass
    image = ImageFiles(top, Format.QCOW2, others=(("below.raw", below),))
    with QemuImageWriter().open(image) as opened:
        assert next(iter(opened.each([(0, MIB)], bytes))) == NOISE
        opened.zero(0, MIB)
        opened.put(MIB, NOISE[::-1])
    assert below.read_bytes() == NOISE * 4
    with QemuImages().open(image) as read:
        assert list(read.each([(0, MIB), (MIB, MIB), (2 * MIB, MIB)], bytes)) == [
            bytes(MIB),
            NOISE[::-1],
            NOISE,
        ]


def test_a_writer_that_is_killed_is_an_error(tmp_path: Path) -> None:
    image = ImageFiles(tmp_path / "disk", Format.RAW)
    QemuImageWriter().create(image, 64 * MIB)
    before = children()
    with pytest.raises(ToolError) as failed, QemuImageWriter().open(image) as opened:
        killed_in_the_middle(opened, children() - before)
    assert failed.value.kind == "unwritable"


def killed_in_the_middle(opened: WritableImage, processes: set[int]) -> None:
    for process in processes:
        os.kill(process, 9)
    for at in range(64):
        opened.put(at * MIB, NOISE)


def children() -> set[int]:
    return {int(word) for word in Path("/proc/thread-self/children").read_text().split()}


def test_memory_does_not_grow_with_what_is_read_and_written(tmp_path: Path) -> None:
    image = ImageFiles(tmp_path / "disk", Format.RAW)
    QemuImageWriter().create(image, 64 * MIB)
    with QemuImageWriter().open(image) as opened:
        few = used(opened, 200)
        assert used(opened, 4000) < few + 200_000


def test_memory_does_not_grow_with_how_often_an_image_is_opened(tmp_path: Path) -> None:
    image = ImageFiles(tmp_path / "disk", Format.QCOW2)
    QemuImageWriter().create(image, 64 * MIB)
    tracemalloc.start()
    try:
        once = opened_and_used(image)
        for _ in range(4):
            again = opened_and_used(image)
        assert again < once + 2 * MIB
    finally:
        tracemalloc.stop()


def opened_and_used(image: ImageFiles) -> int:
    """Bytes that are still there after reads of all of it, and as many writes."""
    with QemuImageWriter().open(image) as opened:
        for number in range(64):
            opened.put(number * MIB, bytes(MIB))
        opened.flush()
        for _ in opened.each([(number * MIB, MIB) for number in range(64)], len):
            pass
    return tracemalloc.get_traced_memory()[0]


def used(opened: WritableImage, requests: int) -> int:
    """Bytes that are still there after so many requests of each kind."""
    tracemalloc.start()
    for number in range(requests):
        opened.put(number % 64 * MIB, NOISE[: 4096 * (1 + number % 8)])
        if number % 64 == 63:
            opened.flush()
    opened.flush()
    for _ in opened.each(((number % 64 * MIB, 4096) for number in range(requests)), len):
        pass
    still = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return still
