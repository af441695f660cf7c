"""A package in an archive: every header is right and every name plain, or it is no package."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from korora.adapters.image import files
from korora.adapters.image.archive import members
from korora.errors import IntegrityError
from korora.model.image import is_plain

Entry = tuple[str, bytes, bytes]


def packed(
    path: Path, *entries: Entry, form: int = tarfile.USTAR_FORMAT, notes: dict[str, str] | None = None
) -> Path:
    """(name, type, content) as an archive."""
    with tarfile.open(path, "w", format=form) as archive:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(content), "/etc/shadow" if kind in b"12" else ""
            info.pax_headers = notes or {}
            archive.addfile(info, io.BytesIO(content))
    return path


ONE, OTHER = ("a.ovf", b"0", b"text"), ("b.vmdk", b"0", b"disk" * 300)


def refused(path: Path) -> str:
    with pytest.raises(IntegrityError) as failed:
        members(path)
    assert failed.value.kind == "bad-package"
    assert str(path) in failed.value.message
    return failed.value.message


def test_files_are_found_where_they_lie(tmp_path: Path) -> None:
    path = packed(tmp_path / "p.ova", ONE, OTHER)
    found = members(path)
    assert list(found) == ["a.ovf", "b.vmdk"]
    assert [files.read(path, 10_000, part) for part in found.values()] == [ONE[2], OTHER[2]]
    assert files.head(path, 6, found["b.vmdk"]) == b"diskdi"


def test_notes_of_times_are_passed_over_and_notes_of_names_and_sizes_refused(tmp_path: Path) -> None:
    form = tarfile.PAX_FORMAT
    assert list(members(packed(tmp_path / "a", ONE, OTHER, form=form, notes={"mtime": "1.5"}))) == [
        "a.ovf",
        "b.vmdk",
    ]
    for note in ("path", "size", "GNU.sparse.name", "linkpath"):
        assert "note" in refused(packed(tmp_path / "b", ONE, form=form, notes={note: "4"}))


@pytest.mark.parametrize("name", ["../a", "/etc/a", "sub/a", "./a", "n" * 150])
def test_a_name_with_a_path_is_refused(name: str, tmp_path: Path) -> None:
    refused(packed(tmp_path / "p.ova", ONE, (name, b"0", b""), form=tarfile.GNU_FORMAT))


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"S", b"L"])
def test_what_is_no_plain_file_is_refused(kind: bytes, tmp_path: Path) -> None:
    refused(packed(tmp_path / "p.ova", ONE, ("x", kind, b"")))


def test_a_name_twice_too_many_files_and_no_archive_are_refused(tmp_path: Path) -> None:
    assert "more than once" in refused(packed(tmp_path / "a", ONE, OTHER, ONE))
    assert "more than 1000" in refused(packed(tmp_path / "b", *((f"f{n}", b"0", b"") for n in range(1001))))
    for content in (b"", b"x", b"x" * 512, b"\x1f\x8b" + bytes(2000)):
        (tmp_path / "c").write_bytes(content)
        refused(tmp_path / "c")


@pytest.mark.parametrize("keep", [511, 512, 600, 1024, 1500, 2048, 2700])
def test_an_archive_that_is_cut_short_is_refused(keep: int, tmp_path: Path) -> None:
    path = packed(tmp_path / "p.ova", ONE, OTHER)
    os.truncate(path, keep)
    refused(path)


def test_a_damaged_second_header_does_not_hide_the_second_file(tmp_path: Path) -> None:
    path = packed(tmp_path / "p.ova", ONE, OTHER)
    content = bytearray(path.read_bytes())
    content[1024 + 3] ^= 1
    path.write_bytes(content)
    assert "damaged" in refused(path)


def test_a_size_below_nothing_or_beyond_the_end_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "p.ova", ONE, OTHER)
    content = bytearray(path.read_bytes())
    for size in (b"\xff" * 12, b"\x80" + b"\x7f" * 11, b"77777777777\0"):
        content[124:136] = size
        content[148:156] = b"        "
        content[148:156] = b"%06o\0 " % sum(content[:512])
        path.write_bytes(content)
        refused(path)


@given(st.integers(0, 3500), st.binary(min_size=1, max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_noise_in_an_archive_is_plain_files_or_refused(tmp_path: Path, at: int, noise: bytes) -> None:
    path = packed(tmp_path / "p.ova", ONE, OTHER)
    content = bytearray(path.read_bytes())
    content[at : at + len(noise)] = noise
    path.write_bytes(content)
    try:
        found = members(path)
    except IntegrityError as failed:
        assert failed.kind == "bad-package"
        return
    assert all(is_plain(name) and part.offset + part.length <= len(content) for name, part in found.items())
