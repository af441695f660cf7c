"""Containers whose headers and tables say what cannot be: an error or a critical finding, and never zeros.

As in the images with which QEMU tries itself, and made here field by field.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

from fakes.disk_images import MIB, converted, disk_content, measured, root_of
from korora.errors import KororaError
from korora.model.image import Format
from korora.wiring.images import looked_at

CONTENT = disk_content()
ROOT = root_of(CONTENT)
KIB = 1024
MOST32, MOST64, HALF64 = (1 << 32) - 1, (1 << 64) - 1, 1 << 63
FAR = 1 << 40
REFUSED = {"bad-image", "image-refused", "image-encrypted", "image-escape", "unreadable"}


Fields = Mapping[str, tuple[int, str, Sequence[int]]]
"""Of a header: where each is, how it is written, and absurd values."""


def cases(fields: Fields) -> list[Any]:
    return [
        pytest.param(at, form, value, id=f"{name}: {value:#x}")
        for name, (at, form, values) in fields.items()
        for value in values
    ]


def edited(data: bytes, at: int, form: str, *values: object) -> bytes:
    found = bytearray(data)
    struct.pack_into(form, found, at, *values)
    return bytes(found)


def outcome(folder: Path, data: bytes, which: Format) -> str:
    """The root, or the kind of the error that there is instead."""
    path = folder / "edited"
    path.write_bytes(data)
    try:
        return measured(path, which).root
    except KororaError as error:
        return error.kind


def made(tmp: pytest.TempPathFactory, which: Format, *options: str) -> bytes:
    folder = tmp.mktemp(which)
    (folder / "disk.raw").write_bytes(CONTENT)
    return converted(folder / "disk.raw", "made", which, *options).read_bytes()


# -- qcow2 -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def qcow2(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return made(tmp_path_factory, Format.QCOW2)


QCOW2_FIELDS: Fields = {
    "version": (4, ">I", (0, 1, 4, MOST32)),
    "bits of a cluster": (20, ">I", (0, 8, 22, 63, MOST32)),
    "size of the first table": (36, ">I", (0, 1 << 24, 1 << 25, 1 << 31, MOST32)),
    "place of the first table": (40, ">Q", (0, 1, 0x10001, FAR, HALF64, MOST64 - 511)),
    "place of the counts": (48, ">Q", (0, 1, FAR, HALF64)),
    "clusters of the counts": (56, ">I", (0, 1 << 20, MOST32)),
    "number of snapshots": (60, ">I", (1, 0xFFFF, 0x10001, MOST32)),
    "what a reader must know": (72, ">Q", (2, 4, 8, 16, 1 << 5, HALF64, MOST64)),
    "order of the counts": (96, ">I", (0, 3, 5, 7, 8, 255, MOST32)),
    "length of the header": (100, ">I", (0, 72, 1 << 20, MOST32)),
    "encryption": (32, ">I", (1, 2, 3, MOST32)),
}


@pytest.mark.parametrize(("at", "form", "value"), cases(QCOW2_FIELDS))
def test_a_qcow2_with_an_absurd_header_is_refused(
    tmp_path: Path, qcow2: bytes, at: int, form: str, value: int
) -> None:
    assert outcome(tmp_path, edited(qcow2, at, form, value), Format.QCOW2) in REFUSED


@pytest.mark.parametrize("value", [2, 3, 0x1000, FAR, MOST64])
@pytest.mark.parametrize("bit", [0, 62, 63])
@pytest.mark.parametrize("table", ["first", "second"])
def test_an_absurd_entry_of_a_qcow2s_tables_is_refused(
    tmp_path: Path, qcow2: bytes, table: str, bit: int, value: int
) -> None:
    first = struct.unpack_from(">Q", qcow2, 40)[0]
    at = first if table == "first" else struct.unpack_from(">Q", qcow2, first)[0] & 0x00FF_FFFF_FFFF_FE00
    assert outcome(tmp_path, edited(qcow2, at, ">Q", value | 1 << bit), Format.QCOW2) in REFUSED


@pytest.mark.parametrize(
    ("number", "place"),
    [(MOST32, None), (10, FAR), (10, HALF64), (1, 0x50000), (MOST32, 0x50000), (65536, 0)],
)
def test_a_qcow2_with_absurd_snapshots_is_refused(
    tmp_path: Path, qcow2: bytes, number: int, place: int | None
) -> None:
    data = edited(qcow2, 60, ">I", number)
    data = edited(data, 64, ">Q", len(qcow2) if place is None else place)
    assert outcome(tmp_path, data, Format.QCOW2) in REFUSED


@pytest.mark.parametrize(
    ("place", "length"), [(FAR, 10), (60_000, 5000), (HALF64, 1023), (500, 1023), (8, MOST32)]
)
def test_a_name_of_a_backing_file_that_lies_outside_of_the_header_is_refused(
    tmp_path: Path, qcow2: bytes, place: int, length: int
) -> None:
    data = edited(edited(qcow2, 8, ">Q", place), 16, ">I", length)
    assert outcome(tmp_path, data, Format.QCOW2) in REFUSED


def with_extension(qcow2: bytes, kind: int, body: bytes, length: int | None = None) -> bytes:
    (begin,) = struct.unpack_from(">I", qcow2, 100)
    said = struct.pack(">II", kind, len(body) if length is None else length)
    whole = said + body.ljust(-(-len(body) // 8) * 8, b"\0") + bytes(8)
    return qcow2[:begin] + whole + qcow2[begin + len(whole) :]


@pytest.mark.parametrize("kind", [0x12345678, 0x23852875, 0x0537BE77, 0xE2792ACA, 0x44415441])
def test_an_extension_longer_than_the_header_is_refused(tmp_path: Path, qcow2: bytes, kind: int) -> None:
    assert outcome(tmp_path, with_extension(qcow2, kind, b"", MOST32), Format.QCOW2) in REFUSED


@pytest.mark.parametrize(
    ("number", "size", "place"),
    [
        (MOST32, 10, 0x50000),
        (1, HALF64, 0x50000),
        (1, 24, FAR),
        (65535, MIB, 0x10000),
        (0, 0, 0),
        (1, 24, 0x50000),
    ],
)
def test_an_absurd_directory_of_bitmaps_is_refused_or_left_alone(
    tmp_path: Path, qcow2: bytes, number: int, size: int, place: int
) -> None:
    """The header says whether anybody is to look at it."""
    data = with_extension(qcow2, 0x23852875, struct.pack(">IIQQ", number, 0, size, place))
    assert outcome(tmp_path, edited(data, 88, ">Q", 0), Format.QCOW2) == ROOT
    assert outcome(tmp_path, edited(data, 88, ">Q", 1), Format.QCOW2) in REFUSED


@pytest.mark.parametrize(("place", "length"), [(FAR, 4096), (0x10000, HALF64), (0, 0), (MOST64, MOST64)])
def test_a_pointer_to_encryption_that_lies_elsewhere_is_refused(
    tmp_path: Path, qcow2: bytes, place: int, length: int
) -> None:
    data = with_extension(qcow2, 0x0537BE77, struct.pack(">QQ", place, length))
    assert outcome(tmp_path, edited(data, 32, ">I", 2), Format.QCOW2) in REFUSED


# -- VMDK --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return made(tmp_path_factory, Format.VMDK)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return made(tmp_path_factory, Format.VMDK, "-o", "subformat=streamOptimized")


VMDK_FIELDS: Fields = {
    "version": (4, "<I", (4, MOST32)),
    "capacity": (12, "<Q", (FAR, 1 << 54, HALF64, MOST64)),
    "sectors of a grain": (20, "<Q", (0, 1 << 31, HALF64)),
    "entries of a table": (44, "<I", (0, 513, 1 << 20, MOST32)),
    "place of the directory": (56, "<Q", (0, 1, FAR, HALF64, MOST64)),
}


@pytest.mark.parametrize(("at", "form", "value"), cases(VMDK_FIELDS))
def test_a_sparse_vmdk_with_an_absurd_header_is_refused(
    tmp_path: Path, sparse: bytes, at: int, form: str, value: int
) -> None:
    assert outcome(tmp_path, edited(sparse, at, form, value), Format.VMDK) in REFUSED


@pytest.mark.parametrize("value", [0, 1, FAR])
def test_a_stream_whose_directory_is_not_where_it_is_said_is_refused(
    tmp_path: Path, stream: bytes, value: int
) -> None:
    assert outcome(tmp_path, edited(stream, 56, "<Q", value), Format.VMDK) in REFUSED
    (said,) = struct.unpack_from("<Q", stream, 56)
    if said == MOST64:
        footer = len(stream) - 1024 + 56
        assert outcome(tmp_path, edited(stream, footer, "<Q", value), Format.VMDK) in REFUSED


@pytest.mark.parametrize("value", [0, MOST32])
def test_a_grain_of_a_stream_of_absurd_length_is_no_zeros(tmp_path: Path, stream: bytes, value: int) -> None:
    at = stream.index(b"\x78\x9c") - 4
    assert outcome(tmp_path, edited(stream, at, "<I", value), Format.VMDK) in REFUSED


@pytest.mark.parametrize("value", [MOST32, 1 << 30])
@pytest.mark.parametrize("which", ["directory", "table"])
def test_an_entry_of_a_vmdk_that_leads_behind_the_file_is_refused(
    tmp_path: Path, sparse: bytes, which: str, value: int
) -> None:
    at = 512 * struct.unpack_from("<Q", sparse, 56)[0]
    if which == "table":
        at = 512 * struct.unpack_from("<I", sparse, at)[0]
    assert outcome(tmp_path, edited(sparse, at, "<I", value), Format.VMDK) in REFUSED


@pytest.mark.parametrize("options", ["monolithicSparse", "streamOptimized"])
def test_a_vmdk_as_it_was_made_has_its_root(
    tmp_path: Path, sparse: bytes, stream: bytes, options: str
) -> None:
    assert outcome(tmp_path, sparse if options == "monolithicSparse" else stream, Format.VMDK) == ROOT


# -- VHD ---------------------------------------------------------------------------------------------------


def summed(data: bytes, begin: int, length: int, at: int) -> bytes:
    """With the sum of these bytes, which stands among them, put right."""
    cleared = edited(data, begin + at, ">I", 0)
    return edited(cleared, begin + at, ">I", ~sum(cleared[begin : begin + length]) & MOST32)


@pytest.fixture(scope="module")
def vhd(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return made(tmp_path_factory, Format.VHD, "-o", "force_size=on")


def with_footer(vhd: bytes, at: int, form: str, *values: int) -> bytes:
    """Of a dynamic disk, with its copy at the beginning."""
    for begin in (0, len(vhd) - 512):
        vhd = summed(edited(vhd, begin + at, form, *values), begin, 512, 64)
    return vhd


@pytest.mark.parametrize("geometry", [(0, 0, 0), (65535, 255, 255), (1, 1, 1), (65535, 16, 255)])
def test_an_absurd_geometry_of_a_vhd_changes_nothing_where_the_size_is_said(
    tmp_path: Path, vhd: bytes, geometry: tuple[int, int, int]
) -> None:
    assert outcome(tmp_path, with_footer(vhd, 56, ">HBB", *geometry), Format.VHD) == ROOT


@pytest.mark.parametrize(
    ("at", "value"),
    [(48, FAR), (48, 1 << 50), (48, HALF64), (48, MOST64), (16, 0), (16, 1), (16, FAR), (16, HALF64)],
)
def test_a_vhd_with_an_absurd_size_or_place_is_refused(
    tmp_path: Path, vhd: bytes, at: int, value: int
) -> None:
    assert outcome(tmp_path, with_footer(vhd, at, ">Q", value), Format.VHD) in REFUSED


@pytest.mark.parametrize(
    ("at", "form", "value"),
    [
        (16, ">Q", 0), (16, ">Q", 1), (16, ">Q", FAR), (16, ">Q", HALF64),
        (28, ">I", 0), (28, ">I", 1), (28, ">I", 1 << 30), (28, ">I", MOST32),
        (32, ">I", 0), (32, ">I", 1), (32, ">I", 3), (32, ">I", 512), (32, ">I", 1 << 31),
    ],
)  # fmt: skip
def test_a_vhd_with_an_absurd_table_is_refused(
    tmp_path: Path, vhd: bytes, at: int, form: str, value: int
) -> None:
    data = summed(edited(vhd, 512 + at, form, value), 512, 1024, 36)
    assert outcome(tmp_path, data, Format.VHD) in REFUSED


def test_a_block_of_a_vhd_behind_the_file_is_refused(tmp_path: Path, vhd: bytes) -> None:
    (table,) = struct.unpack_from(">Q", vhd, 512 + 16)
    assert outcome(tmp_path, edited(vhd, table, ">I", 0xFFFFFFF0), Format.VHD) in REFUSED


# -- VHDX --------------------------------------------------------------------------------------------------

HEADS, TABLES = (64 * KIB, 128 * KIB), (192 * KIB, 256 * KIB)


def checked(data: bytes, begin: int, length: int) -> bytes:
    cleared = edited(data, begin + 4, "<I", 0)
    return edited(cleared, begin + 4, "<I", google_crc32c.value(cleared[begin : begin + length]))


@pytest.fixture(scope="module")
def vhdx(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return made(tmp_path_factory, Format.VHDX)


def with_heads(vhdx: bytes, at: int, form: str, *values: object) -> bytes:
    for begin in HEADS:
        vhdx = checked(edited(vhdx, begin + at, form, *values), begin, 4 * KIB)
    return vhdx


def with_tables(vhdx: bytes, at: int, form: str, *values: object) -> bytes:
    for begin in TABLES:
        vhdx = checked(edited(vhdx, begin + at, form, *values), begin, 64 * KIB)
    return vhdx


def test_a_vhdx_whose_sums_were_made_again_has_its_root(tmp_path: Path, vhdx: bytes) -> None:
    assert (
        outcome(tmp_path, with_tables(with_heads(vhdx, 66, "<H", 1), 0, "4s", b"regi"), Format.VHDX) == ROOT
    )


@pytest.mark.parametrize("both", [HEADS, TABLES], ids=["headers", "tables of regions"])
def test_a_vhdx_with_two_wrong_sums_is_refused(tmp_path: Path, vhdx: bytes, both: tuple[int, int]) -> None:
    for begin in both:
        vhdx = edited(vhdx, begin + 4, "<I", 5)
    assert outcome(tmp_path, vhdx, Format.VHDX) in REFUSED


@pytest.mark.parametrize(
    ("at", "form", "value"),
    [(66, "<H", 9), (68, "<I", MOST32), (72, "<Q", 192 * KIB), (72, "<Q", 1), (8, "<Q", 7)],
    ids=["version", "length of the log", "a log over the tables", "a log nowhere", "two of one number"],
)
def test_a_vhdx_with_absurd_headers_is_refused(
    tmp_path: Path, vhdx: bytes, at: int, form: str, value: int
) -> None:
    assert outcome(tmp_path, with_heads(vhdx, at, form, value), Format.VHDX) in REFUSED


def test_a_vhdx_with_a_log_that_was_not_played_is_refused(tmp_path: Path, vhdx: bytes) -> None:
    """What a guest sees is what it will be once it is, and nobody writes to it here."""
    number, of = 1, b"g" * 16
    length, place = struct.unpack_from("<IQ", vhdx, HEADS[0] + 68)
    entry = bytearray(4 * KIB)
    struct.pack_into(
        "<4sIIIQII16sQQ", entry, 0, b"loge", 0, len(entry), 0, number, 1, 0, of, len(vhdx), len(vhdx)
    )
    struct.pack_into("<4sIQQQ", entry, 64, b"zero", 0, 4 * KIB, 4 * MIB, number)
    struct.pack_into("<I", entry, 4, google_crc32c.value(bytes(entry)))
    assert length >= len(entry)
    data = vhdx[:place] + bytes(entry) + vhdx[place + len(entry) :]
    assert outcome(tmp_path, with_heads(data, 48, "16s", of), Format.VHDX) in REFUSED


@pytest.mark.parametrize(
    "value",
    [0, 64 * KIB, MIB, MIB + 1, FAR, HALF64],
    ids=["nowhere", "headers", "log", "odd", "far", "never"],
)
@pytest.mark.parametrize("entry", [16, 48], ids=["first region", "second region"])
def test_a_region_of_a_vhdx_that_lies_over_others_or_behind_the_file_is_refused(
    tmp_path: Path, vhdx: bytes, entry: int, value: int
) -> None:
    assert outcome(tmp_path, with_tables(vhdx, entry + 16, "<Q", value), Format.VHDX) in REFUSED


def test_regions_of_a_vhdx_that_overlap_are_refused(tmp_path: Path, vhdx: bytes) -> None:
    (second,) = struct.unpack_from("<Q", vhdx, TABLES[0] + 48 + 16)
    assert outcome(tmp_path, with_tables(vhdx, 16 + 16, "<Q", second), Format.VHDX) in REFUSED


@pytest.mark.parametrize("count", [0, MOST32])
def test_an_absurd_number_of_regions_is_refused(tmp_path: Path, vhdx: bytes, count: int) -> None:
    assert outcome(tmp_path, with_tables(vhdx, 8, "<I", count), Format.VHDX) in REFUSED


# -- VDI ---------------------------------------------------------------------------------------------------

VDI_FIELDS: Fields = {
    "version": (68, "<I", (0, MOST32)),
    "place of the map": (340, "<I", (0, 1, 1 << 30, MOST32)),
    "place of the data": (344, "<I", (1, 1 << 30, MOST32)),
    "size": (368, "<Q", (FAR, 1 << 50, HALF64, MOST64)),
    "size of a block": (376, "<I", (0, 1, 512, 1 << 21, MOST32)),
    "number of blocks": (384, "<I", (0, 1, 1 << 30, MOST32)),
    "blocks that are there": (388, "<I", (0, 1, MOST32)),
}


@pytest.mark.parametrize(("at", "form", "value"), cases(VDI_FIELDS))
def test_a_vdi_with_an_absurd_header_is_refused(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, at: int, form: str, value: int
) -> None:
    vdi = made(tmp_path_factory, Format.VDI)
    assert outcome(tmp_path, edited(vdi, at, form, value), Format.VDI) in REFUSED


# -- formats that are none of ours -------------------------------------------------------------------------


def headed(head: bytes) -> bytes:
    return head + CONTENT[len(head) :]


def parallels(_: None) -> bytes:
    return headed(struct.pack("<16sIIIIIQIII", b"WithoutFreeSpace", 2, 16, 64, 63, MOST32, MOST64, 0, 1, 0))


def cloop(_: None) -> bytes:
    script = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"
    return headed(script.ljust(128, b"\0") + struct.pack(">II", MOST32, MOST32))


def bochs(_: None) -> bytes:
    words = (b"Bochs Virtual HD Image", b"Redolog", b"Growing")
    return headed(struct.pack("<32s16s16sIIIIIQ", *words, 0x20000, 512, MOST32, MOST32, 1, MOST64))


def qed(_: None) -> bytes:
    return headed(
        struct.pack("<4sIIIQQQQQII", b"QED\0", MOST32, MOST32, 1, 1, 0, 0, FAR, MOST64, 64, 11)
        + b"/etc/shadow"
    )


def dmg(_: None) -> bytes:
    trailer = b"koly" + struct.pack(">II", 4, 512) + b"\xff" * 500
    return CONTENT[: -len(trailer)] + trailer


def old_qcow(_: None) -> bytes:
    return headed(
        struct.pack(">4sIQIIQBBHIQ", b"QFI\xfb", 1, 48, 11, 0, 8 * MIB, 12, 9, 0, 0, 0x1000) + b"/etc/shadow"
    )


FOREIGN: list[Callable[[None], bytes]] = [parallels, cloop, bochs, qed, dmg]


@pytest.mark.parametrize("make", [*FOREIGN, old_qcow])
def test_a_raw_disk_that_looks_like_a_format_that_is_not_read_is_its_bytes(
    tmp_path: Path, make: Callable[[None], bytes]
) -> None:
    assert outcome(tmp_path, make(None), Format.RAW) == root_of(make(None))


@pytest.mark.parametrize("name", ["disk.raw", "disk.img", "disk", "disk.qed", "disk.dmg", "disk.hdd"])
@pytest.mark.parametrize("make", FOREIGN)
def test_undeclared_it_is_its_bytes_as_well_whatever_its_name(
    tmp_path: Path, make: Callable[[None], bytes], name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(make(None))
    assert looked_at(path).disks[0].files.format is Format.RAW
    assert measured(path).root == root_of(make(None))


@pytest.mark.parametrize("which", [one for one in Format if one is not Format.RAW])
@pytest.mark.parametrize("make", [*FOREIGN, old_qcow])
def test_declared_as_another_format_it_is_refused(
    tmp_path: Path, make: Callable[[None], bytes], which: Format
) -> None:
    assert outcome(tmp_path, make(None), which) in REFUSED
