"""Originals in bags: RFC 8493, read by other tools too."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import bagit
import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.adapters.flags import bag
from korora.adapters.flags.bag import Bag
from korora.errors import IntegrityError
from korora.model.flag import FlagKind, Place

FLAG = "7a6490e73018b69914b96b47676e1eb0"
PLACE = Place(disk="disk0", volume=1, path=b"/srv/\xff\n\x1b[31m evil")


def made(content: bytes = b"what was found", reason: str = "clamav: Eicar") -> Bag:
    return Bag(FLAG, "web", FlagKind.INFECTED, PLACE, reason, content)


@pytest.mark.parametrize("reason", ["short", "x" * 900, "two\nlines: and\ta tab", "Grüße, ✓"])
def test_the_library_of_congress_own_tool_finds_the_bag_valid(tmp_path: Path, reason: str) -> None:
    with tarfile.open(fileobj=io.BytesIO(bag.written(made(reason=reason)))) as archive:
        archive.extractall(tmp_path, filter="data")
    theirs = bagit.Bag(str(tmp_path / FLAG))
    assert theirs.validate()
    assert theirs.info["External-Identifier"] == FLAG
    assert theirs.info["Korora-VM"] == "web"
    assert (tmp_path / FLAG / "data" / "original").read_bytes() == b"what was found"


@given(st.binary(max_size=3000))
def test_a_bag_is_read_back_and_has_one_spelling(content: bytes) -> None:
    packed = bag.written(made(content))
    assert bag.opened(packed)["data/original"] == content
    assert packed == bag.written(made(content))


@given(st.integers(0), st.integers(1, 255))
def test_a_bag_with_a_changed_byte_is_refused_or_has_the_same_original(place: int, change: int) -> None:
    packed = bytearray(bag.written(made()))
    packed[place % len(packed)] ^= change
    try:
        found = bag.opened(bytes(packed))
    except IntegrityError as refused:
        assert refused.kind == "bad-bag"
        return
    assert found["data/original"] == b"what was found"


@given(st.integers(0, 10_239))
def test_a_bag_that_was_cut_is_refused_or_whole(length: int) -> None:
    packed = bag.written(made())
    try:
        assert bag.opened(packed[:length])["data/original"] == b"what was found"
    except IntegrityError as refused:
        assert refused.kind == "bad-bag"


def packed_with(member: tarfile.TarInfo, data: bytes = b"") -> bytes:
    out = io.BytesIO(bag.written(made()))
    with tarfile.open(fileobj=out, mode="a") as archive:
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize("name", [f"{FLAG}/more", "other/data/original", f"{FLAG}/data/original", "/etc/x"])
def test_a_bag_with_another_file_is_refused(name: str) -> None:
    with pytest.raises(IntegrityError):
        bag.opened(packed_with(tarfile.TarInfo(name), b"x"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_a_bag_with_what_is_no_file_is_refused(kind: bytes) -> None:
    member = tarfile.TarInfo(f"{FLAG}/link")
    member.type, member.linkname = kind, "/etc/shadow"
    with pytest.raises(IntegrityError):
        bag.opened(packed_with(member))


@given(st.binary(max_size=2000))
def test_noise_is_no_bag(noise: bytes) -> None:
    with pytest.raises(IntegrityError):
        bag.opened(noise)
