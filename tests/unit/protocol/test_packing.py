"""Files in one tar, in one spelling."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.errors import IntegrityError
from korora.protocol import packing

NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=99)
FILES = st.dictionaries(NAMES, st.binary(max_size=1500), max_size=5)
TWO = packing.packed({"one": b"1" * 700, "folder/two": b""})


def refuse(data: bytes) -> None:
    with pytest.raises(IntegrityError) as refused:
        packing.unpacked(data)
    assert refused.value.kind == "bad-tar"


def of_tarfile(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o600
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


@given(FILES)
def test_what_was_packed_is_read_back(files: dict[str, bytes]) -> None:
    assert list(packing.unpacked(packing.packed(files)).items()) == list(files.items())


@given(FILES)
def test_it_is_byte_by_byte_the_ustar_of_another_writer(files: dict[str, bytes]) -> None:
    files = {name.strip("/") or "x": data for name, data in files.items()}
    assert packing.packed(files) == of_tarfile(files)


@given(st.data())
def test_a_tar_with_a_changed_byte_is_refused_or_has_another_content(data: st.DataObject) -> None:
    changed = bytearray(TWO)
    at = data.draw(st.integers(0, len(TWO) - 1))
    changed[at] ^= data.draw(st.integers(1, 255))
    try:
        read = packing.unpacked(bytes(changed))
    except IntegrityError:
        return
    assert packing.packed(read) == changed
    assert read != packing.unpacked(TWO)


@given(st.integers(0, len(TWO) - 1), st.binary(min_size=1, max_size=1024))
def test_what_was_cut_or_goes_on_is_refused(length: int, more: bytes) -> None:
    refuse(TWO[:length])
    refuse(TWO + more)
    refuse(TWO + bytes(packing.RECORD_BYTES))


@given(st.binary(max_size=3000))
def test_noise_is_no_tar(noise: bytes) -> None:
    refuse(noise)


@pytest.mark.parametrize("name", ["", "x" * 100, "\u00fc", "a\0b"])
def test_a_name_that_the_format_does_not_have_is_not_packed(name: str) -> None:
    with pytest.raises(ValueError, match=r"cannot hold|codec"):
        packing.packed({name: b""})


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize(
    "change",
    [
        {"name": "x" * 150},
        {"mtime": 1},
        {"mode": 0o644},
        {"uid": 1},
        {"uname": "root"},
        {"linkname": "one"},
        *({"type": kind} for kind in (b"1", b"2", b"3", b"5", b"6", b"7", b"S", b"\0", b"x", b"g", b"K")),
    ],
    ids=str,
)
def test_whatever_else_a_tar_may_hold_is_refused(form: int, change: dict[str, object]) -> None:
    member = tarfile.TarInfo("one")
    member.mode = 0o600
    for name, value in change.items():
        setattr(member, name, value)
    block = member.tobuf(form)  # type: ignore[arg-type]
    refuse(block + packing.ending(len(block)))


def test_a_file_that_is_there_twice_is_refused() -> None:
    block = packing.header("one", 0)
    refuse(block * 2 + packing.ending(1024))


def test_a_size_beyond_the_end_is_refused_before_anything_is_made_of_it() -> None:
    refuse(packing.header("one", packing.SIZE_MAX) + bytes(packing.RECORD_BYTES))


def test_a_long_chain_of_long_names_is_refused_like_any_other() -> None:
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 512
    refuse((member.tobuf(tarfile.GNU_FORMAT) + b"a" * 511 + b"\0") * 20_000)
