"""What every writer of disk images must do: the fake in memory, and QEMU in its sandbox."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.image_writer import MemoryWriter
from korora.adapters.image.qemu_nbd import QemuImages
from korora.adapters.image.qemu_writer import QemuImageWriter
from korora.errors import KororaError, UsageError
from korora.model.image import Format, ImageFiles
from korora.ports.image import OpenImage
from korora.ports.image_writer import ImageWriter, WritableImage

MIB = 1 << 20
NOISE = random.Random(7).randbytes(MIB)


@dataclass(frozen=True)
class Place:
    """Where an image is made, and a way to read it afterwards that is none of the writer's."""

    writer: ImageWriter
    image: ImageFiles
    bytes: Callable[[], bytes]


@pytest.fixture(params=["memory", "raw", "qcow2"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    path = tmp_path / "disk.img"
    if request.param == "memory":
        memory = MemoryWriter()
        return Place(memory, ImageFiles(path, Format.RAW), lambda: bytes(memory.images[path].stored))
    image = ImageFiles(path, Format(request.param))

    def read() -> bytes:
        with QemuImages().open(image) as opened:
            return whole(opened)

    return Place(QemuImageWriter(), image, read)


def whole(opened: OpenImage) -> bytes:
    return b"".join(
        opened.each([(at, min(MIB, opened.size - at)) for at in range(0, opened.size, MIB)], bytes)
    )


@pytest.mark.parametrize("size", [0, 512, 5 * MIB + 4608])
def test_a_new_image_is_zeros_of_that_size(place: Place, size: int) -> None:
    place.writer.create(place.image, size)
    assert place.bytes() == bytes(size)
    with place.writer.open(place.image) as opened:
        assert opened.size == size


def test_what_was_put_is_there_and_nothing_else(place: Place) -> None:
    size = 60 * MIB + 512
    place.writer.create(place.image, size)
    expected = bytearray(size)
    chosen = random.Random(3)
    offsets = chosen.sample(range(0, 59 * MIB, MIB), 50)
    with place.writer.open(place.image) as opened:
        for at in offsets:
            data = NOISE[: chosen.choice([1, 512, 4096, 70_000, MIB])]
            opened.put(at, data)
            expected[at : at + len(data)] = data
        opened.put(size - 512, NOISE[:512])
        expected[-512:] = NOISE[:512]
    assert place.bytes() == expected


def test_zeros_replace_what_was_there(place: Place) -> None:
    place.writer.create(place.image, 8 * MIB)
    with place.writer.open(place.image) as opened:
        for at in range(8):
            opened.put(at * MIB, NOISE)
        opened.flush()
        opened.zero(MIB + 512, 2 * MIB)
        opened.zero(7 * MIB, MIB)
    expected = bytearray(NOISE * 8)
    expected[MIB + 512 : 3 * MIB + 512] = bytes(2 * MIB)
    expected[7 * MIB :] = bytes(MIB)
    assert place.bytes() == expected


def test_what_was_flushed_can_be_read_through_the_same_image(place: Place) -> None:
    place.writer.create(place.image, 4 * MIB)
    with place.writer.open(place.image) as opened:
        opened.put(MIB, NOISE)
        opened.flush()
        assert list(opened.each([(MIB, MIB), (0, 512)], bytes)) == [NOISE, bytes(512)]
        assert [one.end for one in opened.extents()][-1] == 4 * MIB


def test_it_can_be_opened_again_and_again(place: Place) -> None:
    place.writer.create(place.image, 4 * MIB)
    for at in range(4):
        with place.writer.open(place.image) as opened:
            opened.put(at * MIB, NOISE[at:] + bytes(at))
    assert place.bytes() == b"".join(NOISE[at:] + bytes(at) for at in range(4))


def test_who_leaves_with_an_error_can_open_it_again(place: Place) -> None:
    place.writer.create(place.image, 4 * MIB)
    with pytest.raises(ZeroDivisionError), place.writer.open(place.image) as opened:
        failing(opened)
    with place.writer.open(place.image) as opened:
        opened.put(MIB, NOISE)
    assert place.bytes()[MIB : 2 * MIB] == NOISE


def failing(opened: WritableImage) -> None:
    opened.put(0, NOISE)
    raise ZeroDivisionError


def filled(opened: WritableImage) -> None:
    for at in range(64):
        opened.put(at * MIB, NOISE)


def test_no_file_is_written_over(place: Place) -> None:
    place.writer.create(place.image, MIB)
    with pytest.raises(UsageError) as failed:
        place.writer.create(place.image, MIB)
    assert failed.value.kind == "exists"


def test_behind_the_end_nothing_is_written(place: Place) -> None:
    place.writer.create(place.image, MIB)
    with pytest.raises(KororaError) as failed, place.writer.open(place.image) as opened:
        opened.put(MIB - 512, NOISE[:1024])
    assert failed.value.kind == "unwritable"
    assert place.bytes() == bytes(MIB)


@pytest.mark.parametrize("which", [Format.VMDK, Format.VHD])
def test_another_format_is_not_written(place: Place, which: Format) -> None:
    image = ImageFiles(place.image.path, which)
    with pytest.raises(UsageError) as created:
        place.writer.create(image, MIB)
    with pytest.raises(UsageError) as opened, place.writer.open(image):
        pass
    assert created.value.kind == opened.value.kind == "unwritable-format"


# -- a storage that is full --------------------------------------------------------------------------------


@contextmanager
def small(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system with so much room."""
    place = folder / "small"
    place.mkdir()
    if os.system(f"mount -t tmpfs -o size={megabytes}m none {place} 2>/dev/null") != 0:  # noqa: S605
        pytest.skip("a file system of its own needs root")
    try:
        yield place
    finally:
        os.system(f"umount {place}")  # noqa: S605


@pytest.mark.parametrize("which", ["memory", "raw", "qcow2"])
def test_a_full_storage_is_an_error_that_says_so(which: str, tmp_path: Path) -> None:
    with small(tmp_path, 8) if which != "memory" else entered_folder(tmp_path) as folder:
        memory = MemoryWriter()
        writer: ImageWriter = memory if which == "memory" else QemuImageWriter()
        image = ImageFiles(folder / "disk", Format.RAW if which == "memory" else Format(which))
        writer.create(image, 64 * MIB)
        if which == "memory":
            memory.images[image.path].room = 8 * MIB
        with pytest.raises(KororaError) as failed, writer.open(image) as opened:
            filled(opened)
        assert failed.value.kind == "image-full"


@contextmanager
def entered_folder(folder: Path) -> Iterator[Path]:
    yield folder
