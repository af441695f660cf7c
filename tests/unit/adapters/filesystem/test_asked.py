"""What is asked of each file, and only that: digests, attributes, where its bytes are read from."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.adapters.filesystem import sandboxed
from korora.adapters.filesystem.attributes import MAGIC, in_block, in_inode
from korora.adapters.filesystem.sandboxed import SandboxedFiles
from korora.model.files import Beside, Done, FileRecord, Told
from korora.model.image import Format, ImageFiles

MIB = 1 << 20


def made(folder: Path, *options: str) -> Path:
    """An ext4 of what lies in `folder`."""
    image = folder.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(16 * MIB)
    command: list[str | Path] = ["mkfs.ext4", "-q", *options, "-d", folder, image]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return image


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("asked") / "root"
    (root / "etc" / "deep").mkdir(parents=True)
    (root / "etc" / "passwd").write_bytes(b"root")
    (root / "large").write_bytes(os.urandom(MIB + 3))
    return made(root)


def walked(image: Path, beside: Sequence[Beside] = ()) -> list[Told]:
    told = list(SandboxedFiles(120.0).walk(ImageFiles(image, Format.RAW), beside=beside))
    assert isinstance(told[-1], Done)
    return told


def files(told: list[Told]) -> dict[bytes, FileRecord]:
    return {one.path: one for one in told if isinstance(one, FileRecord)}


def digests(told: list[Told]) -> set[tuple[bool, bool, bool]]:
    return {
        (bool(one.blake3), bool(one.md5), bool(one.sha256))
        for one in files(told).values()
        if one.kind == "file"
    }


def test_a_digest_beside_blake3_is_made_where_the_folder_that_asks_for_it_is(image: Path) -> None:
    asked = [Beside("md5", b"/etc/deep"), Beside("sha256", b"/nowhere"), Beside("sha256", b"/nor/*/here")]
    assert digests(walked(image, asked)) == {(True, True, False)}


def test_a_pattern_asks_where_the_folder_above_it_is(image: Path) -> None:
    assert digests(walked(image, [Beside("sha256", b"/etc/*/here")])) == {(True, False, True)}


def test_whoever_asks_for_no_other_digest_gets_blake3_alone(image: Path) -> None:
    assert digests(walked(image)) == {(True, False, False)}


def test_a_raw_disk_of_no_whole_number_of_sectors_is_read_from_its_file(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd, words, order = tmp_path / "odd.img", list[tuple[str, str, str]](), sandboxed._order

    def noted(process: subprocess.Popen[bytes], found: tuple[str, str, str]) -> None:
        words.append(found)
        order(process, found)

    monkeypatch.setattr(sandboxed, "_order", noted)
    odd.write_bytes(image.read_bytes() + b"behind" * 10)
    assert files(walked(odd)) == files(walked(image))
    assert [how for how, _, _ in words] == ["file", "file"]


@pytest.mark.parametrize("options", [("-I", "128"), ("-I", "256"), ("-I", "1024"), ("-O", "^metadata_csum")])
def test_attributes_are_found_in_the_inode_and_in_a_block_of_their_own(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    lengths = {"none": 0, "short": 1, "long": 900, "folder": 1}
    for name, length in lengths.items():
        if name != "folder":
            (root / name).write_bytes(b"x")
        if length:
            os.setxattr(root / name, "user.note", b"y" * length)
    found = files(walked(made(root, "-b", "1024", *options)))
    assert not [one for one in found.values() if one.problem]
    for name, length in lengths.items():
        noted = {"user.note": hashlib.sha256(b"y" * length).hexdigest()}
        assert found[b"/" + name.encode()].xattrs == (noted if length else {}), name


def test_where_descriptors_are_spread_attributes_are_whole_as_well(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name, length in (("short", 60), ("long", 61)):
        (root / name).write_bytes(b"x")
        os.setxattr(root / name, "user.note", bytes(range(length)))
    found = files(walked(made(root, "-O", "meta_bg,^resize_inode")))
    for name, length in (("short", 60), ("long", 61)):
        noted = {"user.note": hashlib.sha256(bytes(range(length))).hexdigest()}
        assert found[b"/" + name.encode()].xattrs == noted


@given(st.binary(min_size=160, max_size=512), st.integers(0, 200))
def test_whatever_stands_where_attributes_are_they_are_none_or_lie_there(raw: bytes, at: int) -> None:
    with suppress(ValueError):
        for _, value in in_inode(raw[:at] + MAGIC + raw[at:], at):
            assert value in raw
    with suppress(ValueError):
        for _, value in in_block(MAGIC + raw):
            assert value in MAGIC + raw


def test_a_value_that_lies_elsewhere_is_no_value() -> None:
    apart = (
        bytes([1, 1]) + (60).to_bytes(2, "little") + (9).to_bytes(4, "little") + bytes(8) + b"a" + bytes(7)
    )
    with pytest.raises(ValueError, match="inode of its own"):
        list(in_block(MAGIC + bytes(28) + apart))
