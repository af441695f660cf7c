"""What every reader of a disk's content must do: the fake in memory, a plain file, QEMU in its sandbox."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest

from fakes.image import MemoryImage
from korora.adapters.image.plain import plain
from korora.adapters.image.qemu_nbd import QemuImages, served
from korora.errors import KororaError, ToolError
from korora.model.image import Extent, Format, ImageFiles, NbdExport, Slice
from korora.ports.image import OpenImage
from korora.protocol.content_tree import CHUNK_BYTES

Open = Callable[[bytes], AbstractContextManager[OpenImage]]
NOISE = random.Random(7).randbytes(CHUNK_BYTES)
CONTENT = NOISE + bytes(5 * CHUNK_BYTES) + NOISE[::-1] + bytes(65536) + NOISE[:512]


@contextmanager
def served_by_another(image: ImageFiles, folder: Path) -> Iterator[OpenImage]:
    """As the hypervisor of a running VM serves its disks."""
    folder.mkdir()
    with served(image, folder, 4), QemuImages().open_export(NbdExport(folder / "nbd")) as opened:
        yield opened


@pytest.fixture(params=["memory", "plain", "raw", "qcow2", "qemu", "export"])
def open_image(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    def in_memory(content: bytes) -> AbstractContextManager[OpenImage]:
        return nullcontext(MemoryImage(content))

    def through_qemu(content: bytes) -> AbstractContextManager[OpenImage]:
        path = tmp_path / "disk.raw"
        with path.open("wb") as file:  # sparse where the content is zero, as a disk is
            for at in range(0, len(content), 4096):
                piece = content[at : at + 4096]
                file.seek(at)
                if piece.strip(b"\0"):
                    file.write(piece)
            file.truncate(len(content))
        if request.param == "plain":
            return plain(path)
        image = ImageFiles(path, Format.RAW)
        if request.param == "export":
            return served_by_another(image, tmp_path / "served")
        if request.param == "qcow2":
            image = ImageFiles(tmp_path / "disk.qcow2", Format.QCOW2)
            words = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(path), str(image.path)]
            subprocess.run(words, check=True, timeout=120)
        if request.param == "qemu":
            image = served_by_qemu(path)
        return QemuImages().open(image)

    return in_memory if request.param == "memory" else through_qemu


def served_by_qemu(path: Path) -> ImageFiles:
    """As a part of a file, of which QEMU reads every byte; of a file, it tells where the bytes lie."""
    return ImageFiles(path, Format.RAW, Slice(0, path.stat().st_size))


@pytest.mark.parametrize("content", [b"", NOISE[:512], CONTENT], ids=["nothing", "one sector", "more"])
def test_size_and_bytes_are_those_of_the_disk(open_image: Open, content: bytes) -> None:
    with open_image(content) as opened:
        assert opened.size == len(content)
        ranges = [(0, len(content))] if content else []
        assert list(opened.each(ranges, bytes)) == [content] * bool(content)


@pytest.mark.parametrize("offset", [0, CHUNK_BYTES, 3 * CHUNK_BYTES, 7 * CHUNK_BYTES, len(CONTENT)])
def test_extents_have_no_gaps_and_end_with_the_disk(open_image: Open, offset: int) -> None:
    with open_image(CONTENT) as opened:
        found: list[Extent] = list(opened.extents(offset))
        at = offset
        for one in found:
            assert one.offset == at
            assert one.length > 0
            at = one.end
        assert at == len(CONTENT)


def test_what_is_said_to_be_zero_is_zero(open_image: Open) -> None:
    with open_image(CONTENT) as opened:
        for one in opened.extents():
            assert not one.zero or not CONTENT[one.offset : one.end].strip(b"\0")


def test_many_ranges_come_in_their_order(open_image: Open) -> None:
    chosen = random.Random(3)
    begins = [chosen.randrange(0, len(CONTENT) // 512) * 512 for _ in range(600)]
    ranges = [(at, min(chosen.choice([512, 4096, CHUNK_BYTES]), len(CONTENT) - at)) for at in begins]
    with open_image(CONTENT) as opened:
        found = opened.each(iter(ranges), bytes)
        for (at, length), got in zip(ranges, found, strict=True):
            assert got == CONTENT[at : at + length]


def test_a_shorter_last_chunk_is_read_as_it_is(open_image: Open) -> None:
    with open_image(CONTENT) as opened:
        begin = len(CONTENT) // CHUNK_BYTES * CHUNK_BYTES
        assert list(opened.each([(begin, len(CONTENT) - begin)], bytes)) == [CONTENT[begin:]]


def test_what_fails_in_the_work_comes_out_and_later_reads_are_right(open_image: Open) -> None:
    def failing(_: memoryview) -> bytes:
        raise ZeroDivisionError

    ranges = [(at * CHUNK_BYTES, CHUNK_BYTES) for at in range(7)]
    with open_image(CONTENT) as opened:
        for _ in range(5):
            with pytest.raises(ZeroDivisionError):
                list(opened.each(ranges, failing))
            assert b"".join(opened.each(ranges, bytes)) == CONTENT[: 7 * CHUNK_BYTES]


def test_who_stops_in_the_middle_can_read_again(open_image: Open) -> None:
    ranges = [(at * CHUNK_BYTES, CHUNK_BYTES) for at in range(7)] * 20
    with open_image(CONTENT) as opened:
        assert next(iter(opened.each(ranges, bytes))) == NOISE
        assert next(iter(opened.each(ranges[6:], bytes))) == NOISE[::-1]


# -- what cannot be read -----------------------------------------------------------------------------------


@contextmanager
def unreadable_in_memory(_: Path) -> Iterator[OpenImage]:
    yield MemoryImage(bytes(8 * CHUNK_BYTES), broken={5 * CHUNK_BYTES})


@contextmanager
def dead_qemu(folder: Path) -> Iterator[OpenImage]:
    """QEMU itself dies: this test's own sandbox, found as the child that serves the image."""
    path = folder / "disk.raw"
    path.write_bytes(NOISE * 8)
    before = children()
    with QemuImages().open(served_by_qemu(path)) as opened:
        for child in children() - before:
            os.kill(child, 9)
        yield opened


@contextmanager
def cut_short(folder: Path) -> Iterator[OpenImage]:
    """The file loses its end while it is read."""
    path = folder / "disk.raw"
    path.write_bytes(NOISE * 8)
    with QemuImages().open(ImageFiles(path, Format.RAW)) as opened:
        os.truncate(path, 5 * CHUNK_BYTES + 7)
        yield opened


@contextmanager
def damaged_qcow2(folder: Path) -> Iterator[OpenImage]:
    """A qcow2 whose sixth MiB lies far behind the file's end, at an address of no cluster."""
    path = folder / "disk.qcow2"
    header = bytearray(b"QFI\xfb" + (2).to_bytes(4, "big") + bytes(12) + (16).to_bytes(4, "big"))
    header += (8 * CHUNK_BYTES).to_bytes(8, "big") + bytes(4) + (1).to_bytes(4, "big")
    header += (0x30000).to_bytes(8, "big") + (0x10000).to_bytes(8, "big") + (1).to_bytes(4, "big") + bytes(12)
    image = bytearray(0x60000)
    image[: len(header)] = header
    image[0x10000:0x10008] = (0x20000).to_bytes(8, "big")
    for cluster in range(6):
        image[0x20000 + 2 * cluster : 0x20002 + 2 * cluster] = (1).to_bytes(2, "big")
    image[0x30000:0x30008] = (0x40000 | 1 << 63).to_bytes(8, "big")
    at = 0x40000 + 8 * (5 * CHUNK_BYTES // 0x10000)
    image[at : at + 8] = (0x7777_0200 | 1 << 63).to_bytes(8, "big")
    path.write_bytes(image)
    with QemuImages().open(ImageFiles(path, Format.QCOW2)) as opened:
        yield opened


@contextmanager
def dead_server(folder: Path) -> Iterator[OpenImage]:
    path = folder / "disk.raw"
    path.write_bytes(NOISE * 8)
    before = children()
    with served_by_another(ImageFiles(path, Format.RAW), folder / "served") as opened:
        for child in children() - before:
            os.kill(child, 9)
        yield opened


def children() -> set[int]:
    return {int(word) for word in Path("/proc/thread-self/children").read_text().split()}


@pytest.mark.parametrize(
    "unreadable", [unreadable_in_memory, dead_qemu, dead_server, cut_short, damaged_qcow2]
)
def test_what_cannot_be_read_is_an_error_and_never_zeros(
    unreadable: Callable[[Path], AbstractContextManager[OpenImage]], tmp_path: Path
) -> None:
    with unreadable(tmp_path) as opened:
        for _ in range(2):
            with pytest.raises(KororaError) as failed:
                list(opened.each([(at * CHUNK_BYTES, CHUNK_BYTES) for at in range(8)], bytes))
            assert failed.value.kind == "unreadable"


def test_an_export_that_nobody_serves_or_of_another_name_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(NOISE)
    with served(ImageFiles(path, Format.RAW), tmp_path, 4):
        for export in (NbdExport(tmp_path / "none"), NbdExport(path), NbdExport(tmp_path / "nbd", "other")):
            with pytest.raises(ToolError) as failed, QemuImages().open_export(export):
                pass
            assert failed.value.kind == "unreadable"
