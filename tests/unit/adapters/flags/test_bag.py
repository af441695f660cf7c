"""Originals in bags: RFC 8493, read by other tools too."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import bagit
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.adapters.flags import bag
from korora.adapters.flags.bag import Bag
from korora.errors import IntegrityError
from korora.model.flag import FlagKind, Place
from korora.protocol import canonical, packing

OTHER = "0" * 32
FLAG = "7a6490e73018b69914b96b47676e1eb0"
NAMES = [
    "Source-Organization",
    "External-Identifier",
    "External-Description",
    "Payload-Oxum",
    "Korora-VM",
    "Korora-Kind",
    "Korora-Place",
]
PLACE = Place(disk="disk0", volume=1, path=b"/srv/\xff\n\x1b[31m evil")


def unfolded(text: str) -> str:
    return text.replace("\n  ", "")


def refuse(packed: bytes, flag: str = FLAG) -> None:
    with pytest.raises(IntegrityError) as refused:
        bag.opened(packed, flag)
    assert refused.value.kind == "bad-bag"


def made(content: bytes = b"what was found", reason: str = "clamav: Eicar") -> Bag:
    return Bag(FLAG, "web", FlagKind.INFECTED, PLACE, reason, content)


@pytest.mark.parametrize(
    "reason",
    ["short", "x" * 900, "two\nlines: and\ta tab", "Grüße, ✓", " " * 300 + "far", "Payload-Oxum: 1.1\n"],
)
def test_the_library_of_congress_own_tool_finds_the_bag_valid(tmp_path: Path, reason: str) -> None:
    with tarfile.open(fileobj=io.BytesIO(bag.written(made(reason=reason)))) as archive:
        archive.extractall(tmp_path, filter="data")
    theirs = bagit.Bag(str(tmp_path / FLAG))
    assert theirs.validate()
    assert theirs.info["External-Identifier"] == FLAG
    assert theirs.info["Korora-VM"] == "web"
    assert unfolded(theirs.info["Korora-Place"]) == canonical.encoded(PLACE).decode()
    assert unfolded(theirs.info["External-Description"]).endswith(
        json.dumps(reason, ensure_ascii=False)[1:-1].rstrip()
    )
    assert set(theirs.info) == set(NAMES)
    assert (tmp_path / FLAG / "data" / "original").read_bytes() == b"what was found"


@pytest.mark.parametrize("shift", range(0, 80, 3))
def test_words_are_folded_where_no_tool_takes_a_space_away(tmp_path: Path, shift: int) -> None:
    reason = "x" * shift + " ab" * 100 + "  cde" * 50
    with tarfile.open(fileobj=io.BytesIO(bag.written(made(reason=reason)))) as archive:
        archive.extractall(tmp_path, filter="data")
    theirs = bagit.Bag(str(tmp_path / FLAG))
    assert unfolded(theirs.info["External-Description"]).endswith(f": {reason}")
    told = (tmp_path / FLAG / "bag-info.txt").read_text().splitlines()
    assert max(map(len, told)) <= 79
    assert not [line for line in told if line != line.rstrip() or line.startswith("   ")]


@given(st.binary(max_size=3000))
def test_a_bag_is_read_back_and_has_one_spelling(content: bytes) -> None:
    packed = bag.written(made(content))
    assert bag.opened(packed, FLAG)["data/original"] == content
    assert packed == bag.written(made(content))


@given(st.text(max_size=400), st.binary(max_size=300))
def test_what_a_guest_wrote_adds_no_line_to_what_is_said_of_it_and_its_place_can_be_read(
    words: str, path: bytes
) -> None:
    place = Place(disk="disk0", path=path, file=words)
    packed = bag.written(Bag(FLAG, "web", FlagKind.INFECTED, place, words, b""))
    lines = unfolded(bag.opened(packed, FLAG)["bag-info.txt"].decode()).splitlines()
    said = [line.partition(": ") for line in lines]
    assert [name for name, _, _ in said] == NAMES
    assert msgspec.json.decode(said[-1][2], type=Place) == place


@given(st.integers(0), st.integers(1, 255))
def test_a_bag_with_a_changed_byte_is_refused(place: int, change: int) -> None:
    packed = bytearray(bag.written(made()))
    packed[place % len(packed)] ^= change
    refuse(bytes(packed))


@given(st.integers(0, 10_239))
def test_a_bag_that_was_cut_is_refused(length: int) -> None:
    refuse(bag.written(made())[:length])


def test_another_flags_bag_is_refused() -> None:
    packed = bag.written(made())
    refuse(packed, OTHER)
    files = {name.replace(FLAG, OTHER): data for name, data in packing.unpacked(packed).items()}
    refuse(packing.packed(files), OTHER)  # its own words name another flag


FILES = ["bagit.txt", "bag-info.txt", "data/original", "manifest-sha256.txt", "tagmanifest-sha256.txt"]


@pytest.mark.parametrize("name", FILES)
def test_a_bag_whose_parts_do_not_fit_each_other_is_refused(name: str) -> None:
    files = packing.unpacked(bag.written(made()))
    changed = files | {f"{FLAG}/{name}": files[f"{FLAG}/{name}"] + b"x"}
    refuse(packing.packed(changed))
    refuse(packing.packed({one: data for one, data in files.items() if not one.endswith(f"/{name}")}))


@pytest.mark.parametrize("said", [b"BagIt-Version: 0.97\nTag-File-Character-Encoding: UTF-8\n", b""])
def test_a_bag_of_another_version_is_refused_though_its_digests_fit(said: bytes) -> None:
    files = packing.unpacked(bag.written(made())) | {f"{FLAG}/bagit.txt": said}
    tags = (
        f"{hashlib.sha256(files[f'{FLAG}/{name}']).hexdigest()}  {name}\n"
        for name in ("bagit.txt", "bag-info.txt", "manifest-sha256.txt")
    )
    refuse(packing.packed(files | {f"{FLAG}/tagmanifest-sha256.txt": "".join(tags).encode()}))


def test_a_bag_beyond_the_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bag, "MAX_BAG_BYTES", 10_239)
    refuse(bag.written(made()))


def packed_with(member: tarfile.TarInfo, data: bytes = b"") -> bytes:
    out = io.BytesIO(bag.written(made()))
    with tarfile.open(fileobj=out, mode="a") as archive:
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize("name", [f"{FLAG}/more", "other/data/original", f"{FLAG}/data/original", "/etc/x"])
def test_a_bag_with_another_file_is_refused(name: str) -> None:
    refuse(packed_with(tarfile.TarInfo(name), b"x"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_a_bag_with_what_is_no_file_is_refused(kind: bytes) -> None:
    member = tarfile.TarInfo(f"{FLAG}/link")
    member.type, member.linkname = kind, "/etc/shadow"
    refuse(packed_with(member))


@given(st.binary(max_size=2000))
def test_noise_is_no_bag(noise: bytes) -> None:
    refuse(noise)
