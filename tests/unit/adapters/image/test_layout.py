"""Where a disk's bytes lie in its image's file, and for which images that is said."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.disk_images import MIB, converted, disk_content, qemu_img
from korora.adapters.image import qemu_nbd
from korora.adapters.image.layout import Layout, Piece, decoded, laid_out
from korora.adapters.image.qemu_nbd import QemuImages, in_file
from korora.model.image import Format, ImageFiles, Slice

CONTENT = disk_content()
RUNS = st.lists(
    st.tuples(st.integers(1, 1 << 40), st.none() | st.integers(0, 1 << 50)), min_size=1, max_size=20
)


def entry(start: int, length: int, **other: Any) -> dict[str, Any]:
    return {"start": start, "length": length, "depth": 0, "zero": False, "data": True} | other


def said(*entries: dict[str, Any]) -> bytes:
    return json.dumps(entries).encode()


def by_bytes(layout: Layout, offset: int, length: int) -> list[int | None]:
    """Where each byte lies."""
    found: list[int | None] = []
    for count, place in layout.pieces(offset, length):
        found += [None if place is None else place + at for at in range(count)]
    return found


@given(st.lists(st.tuples(st.integers(1, 20), st.none() | st.integers(0, 99)), min_size=1), st.data())
def test_every_byte_lies_where_its_run_has_it(runs: list[Piece], drawn: st.DataObject) -> None:
    layout = Layout(runs)
    every = [
        None if place is None else place + at for length, place in runs for at in range(length)
    ]  # by hand
    begin = drawn.draw(st.integers(0, layout.size - 1))
    length = drawn.draw(st.integers(0, layout.size - begin))
    assert by_bytes(layout, begin, length) == every[begin : begin + length]


@given(RUNS, st.data())
def test_extents_are_the_runs_from_there_on_and_have_no_gaps(runs: list[Piece], drawn: st.DataObject) -> None:
    layout = Layout(runs)
    at = begin = drawn.draw(st.integers(0, layout.size))
    for one in layout.extents(begin):
        assert one.offset == at
        assert one.zero == (next(iter(layout.pieces(at, 1)))[1] is None)
        at = one.end
    assert at == layout.size


@given(RUNS)
def test_what_was_encoded_is_the_same_layout(runs: list[Piece]) -> None:
    layout = Layout(runs)
    other = decoded(layout.encoded())
    assert other.size == layout.size
    assert list(other.pieces(0, other.size)) == runs


def test_zeros_lie_nowhere_and_data_where_it_is_said() -> None:
    layout = laid_out(said(entry(0, 10, offset=90), entry(10, 5, zero=True, data=False)), 100)
    assert layout is not None
    assert list(layout.pieces(4, 11)) == [(6, 94), (5, None)]


@pytest.mark.parametrize(
    "mapped",
    [
        b"",
        b"[",
        b"{}",
        said({"start": 0}),
        said(entry(0, 10)),  # compressed, encrypted, or of another file
        said(entry(0, 10, offset=91)),
        said(entry(0, 10, offset=-1)),
        said(entry(0, 0, offset=0)),
        said(entry(0, -5, offset=0)),
        said(entry(1, 9, offset=0)),
        said(entry(0, 10, offset=0), entry(11, 5, offset=20)),
        said(entry(0, 10, offset=0), entry(5, 5, offset=20)),
        said(entry(0, 10, offset=0, data=False)),
        said(entry(0, 10, offset=1 << 70)),
        said(entry(0, 1 << 70, zero=True, data=False)),
        said(entry(0, 1 << 62, zero=True, data=False), entry(1 << 62, 1 << 62, zero=True, data=False)),
    ],
)
def test_of_anything_else_nothing_is_said(mapped: bytes) -> None:
    assert laid_out(mapped, 100) is None


# -- real images -------------------------------------------------------------------------------------------


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize(
    ("name", "which", "options"),
    [
        ("a.qcow2", Format.QCOW2, ()),
        ("a.qcow2", Format.QCOW2, ("-o", "extended_l2=on,cluster_size=128k")),
        ("a.vdi", Format.VDI, ()),
        ("a.vhd", Format.VHD, ("-o", "force_size=on")),
        ("a.vmdk", Format.VMDK, ()),
    ],
)
def test_the_bytes_that_lie_there_are_those_that_a_guest_sees(
    name: str, which: Format, options: tuple[str, ...], raw: Path
) -> None:
    path = converted(raw, name, which, *options)
    found = in_file(ImageFiles(path, which))
    assert found is not None
    assert found.layout is not None
    file = path.read_bytes()
    read = [
        bytes(count) if place is None else file[place : place + count]
        for count, place in found.layout.pieces(0, found.layout.size)
    ]
    assert b"".join(read) == CONTENT


def test_an_image_that_was_written_out_of_order_is_read_in_order(raw: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-f", "qcow2", path, str(8 * MIB))
    expected, chosen = bytearray(8 * MIB), random.Random(5)
    commands = []
    for fill in range(1, 60):
        at, length = chosen.randrange(0, 100) * 65536, chosen.randrange(1, 200) * 512
        expected[at : at + length] = bytes([fill]) * length
        commands += ["-c", f"write -P {fill} {at} {length}"]
    commands += ["-c", f"write -z {2 * MIB} {MIB}"]
    expected[2 * MIB : 3 * MIB] = bytes(MIB)
    subprocess.run(["qemu-io", "-f", "qcow2", *commands, path], check=True, capture_output=True, timeout=120)
    with QemuImages().open(ImageFiles(path, Format.QCOW2)) as opened:
        assert in_file(ImageFiles(path, Format.QCOW2)) is not None
        assert b"".join(opened.each([(at * MIB, MIB) for at in range(8)], bytes)) == bytes(expected)


@pytest.mark.parametrize("behind", [0, 1, 511])
def test_behind_the_end_of_a_raw_file_lie_zeros_up_to_a_whole_sector(tmp_path: Path, behind: int) -> None:
    path = tmp_path / "odd.raw"
    path.write_bytes(b"x" * (4096 - behind))
    found = in_file(ImageFiles(path, Format.RAW))
    with QemuImages().open(ImageFiles(path, Format.RAW)) as opened:
        assert opened.size == 4096
    assert found is not None
    layout = found.served_as(4096)
    assert layout is not None
    assert list(layout.pieces(0, 4096)) == [(4096 - behind, 0), (behind, None)][: 2 if behind else 1]
    assert found.served_as(4096 - behind - 1) is None
    assert found.served_as(4096 - behind + 512) is None


def test_a_layout_is_of_no_other_size_than_its_own(raw: Path) -> None:
    found = in_file(ImageFiles(converted(raw, "a.qcow2", "qcow2"), Format.QCOW2))
    assert found is not None
    assert found.served_as(found.size) is found.layout
    assert found.served_as(found.size + 1) is None


def test_what_lies_in_one_piece_is_found_as_one(raw: Path) -> None:
    layout = Layout([(100, 50), (100, None), (100, 400)])
    assert layout.in_one_piece(10, 90) == 60
    assert layout.in_one_piece(10, 91) is None
    assert layout.in_one_piece(150, 10) is None
    assert layout.in_one_piece(200, 100) == 400


def test_nothing_is_said_of_compressed_images_chains_and_parts_of_files(raw: Path, tmp_path: Path) -> None:
    compressed = converted(raw, "c.qcow2", "qcow2", "-c")
    assert in_file(ImageFiles(compressed, Format.QCOW2)) is None
    upper = tmp_path / "upper.qcow2"
    qemu_img("create", "-f", "qcow2", "-b", compressed, "-F", "qcow2", upper)
    assert in_file(ImageFiles(upper, Format.QCOW2, others=((str(compressed), compressed),))) is None
    assert in_file(ImageFiles(raw, Format.RAW, Slice(512, 1024))) is None


def test_a_map_that_is_long_or_late_is_not_waited_for(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = ImageFiles(converted(raw, "a.qcow2", "qcow2"), Format.QCOW2)
    monkeypatch.setattr(qemu_nbd, "MAP_BYTES", 10)
    assert in_file(image) is None
    monkeypatch.setattr(qemu_nbd, "MAP_BYTES", 1 << 20)
    monkeypatch.setattr(qemu_nbd, "MAPPED_WITHIN_S", 0.0)
    assert in_file(image) is None
    with QemuImages().open(image) as opened:
        assert b"".join(opened.each([(0, opened.size)], bytes)) == CONTENT
