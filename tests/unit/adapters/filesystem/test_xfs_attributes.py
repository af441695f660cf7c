"""Extended attributes of XFS as Linux wrote them: each has the digest of its value, or is unknown."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from fakes.mounts import mounted
from fakes.volumes import blank, files_of, problems_of, run, walked
from korora.adapters.filesystem.xfs_attributes import attributes_of
from korora.model.files import FileRecord, Problem

CONTENT = b"content"
NOISE = random.Random(4)
Values = Mapping[str, bytes]


def made(folder: Path, files: Mapping[str, Values], *options: str) -> Path:
    image = blank(folder / "xfs.raw", 320)
    run("mkfs.xfs", "-q", *options, image)
    with mounted(image, folder / "mounted") as root:
        for name in files:
            (root / name).write_bytes(CONTENT)
        # In turn, so that what one of them has lies in pieces.
        longest = max(len(values) for values in files.values())
        for number in range(longest):
            for name, values in files.items():
                for key in [*values][number : number + 1]:
                    os.setxattr(root / name, os.fsencode(key), values[key])
    return image


def told(image: Path) -> tuple[dict[str, FileRecord], list[Problem]]:
    found = walked(image.read_bytes())
    return {path.decode()[1:]: one for path, one in files_of(found).items()}, problems_of(found)


def digests(values: Values) -> dict[str, str]:
    return {name: hashlib.sha256(value).hexdigest() for name, value in values.items()}


def noise(*sizes: int) -> dict[str, bytes]:
    return {f"user.n{number}": NOISE.randbytes(size) for number, size in enumerate(sizes)}


@pytest.mark.parametrize(
    ("options", "longest"),
    [(("-b", "size=1024"), 600), (("-i", "size=1024"), 3000), (("-n", "size=16384"), 3000)],
    ids=["small blocks", "large inodes", "large folders"],
)
def test_values_in_the_inode_and_in_leaves_are_whole(
    tmp_path: Path, options: tuple[str, str], longest: int
) -> None:
    sizes = [size for size in (1, 59, 60, 61, 100, 255, 256, 300, 600, 3000) if size <= longest]
    wanted: dict[str, Values] = {
        "none": {},
        "empty": {"user.e": b""},
        **{f"one-{size}": noise(size) for size in sizes},
        "kinds": {"user.a": b"a" * 61, "trusted.b": b"b" * 200, "security.c": b"c" * 80},
        "names": {"user." + "n" * 250: b"v" * 200, "user.\u00e9": b"1"},
        "blocks": noise(*(longest,) * 40),
    }
    files, problems = told(made(tmp_path, wanted, *options))
    assert problems == []
    assert {name: (files[name].xattrs, files[name].problem) for name in wanted} == {
        name: (digests(values), "") for name, values in wanted.items()
    }


def test_thousands_of_attributes_in_a_tree_of_extents_are_all_told(tmp_path: Path) -> None:
    wanted = {f"file{number}": noise(*(40,) * 1500) for number in range(8)}
    image = made(tmp_path, wanted)
    facts = run("xfs_db", "-r", "-c", "path /file3", "-c", "print core.aformat", image)
    assert "btree" in facts
    files, problems = told(image)
    assert problems == []
    assert {name: files[name].xattrs for name in wanted} == {
        name: digests(values) for name, values in wanted.items()
    }


def test_where_an_attribute_cannot_be_read_the_file_is_told_and_its_attributes_are_unknown(
    tmp_path: Path,
) -> None:
    """Values in blocks of their own, which libfsxfs does not read, and names that are no text."""
    wanted = {
        "remote": noise(5000),
        "longest": noise(1 << 16),
        "both": noise(50, 5000),
        "name": {os.fsdecode(b"user.\xff"): b"1"},
    }
    files, problems = told(made(tmp_path, {"none": {}, **wanted}))
    assert problems == []
    assert files["none"].blake3
    for name in wanted:
        assert files[name].xattrs is None
        assert "extended attributes" in files[name].problem
        assert files[name].blake3 == files["none"].blake3


# -- what the library could say of a crafted one -----------------------------------------------------------


def entry(*attributes: tuple[str, bytes, int]) -> SimpleNamespace:
    """A file with these attributes: name, what can be read, and the size that is stated."""

    def held(name: str, value: bytes, size: int) -> SimpleNamespace:
        return SimpleNamespace(name=name, read=lambda _: value, get_size=lambda: size)

    told = [held(*one) for one in attributes]
    return SimpleNamespace(number_of_extended_attributes=len(told), get_extended_attribute=told.__getitem__)


def test_what_is_told_in_full_has_the_digest_of_its_value() -> None:
    assert attributes_of(entry(("user.a", b"1", 1)), 4096, 5) == digests({"user.a": b"1"})


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize(
    "attributes",
    [
        [("user.a", b"1", 1), ("user.a", b"2", 1)],
        [("user.a", b"short", 6)],
        [("user.a", b"", 100)],
        [("user.a", bytes((1 << 16) + 1), (1 << 16) + 1)],
    ],
    ids=["two of a name", "a byte missing", "nothing there", "longer than may be"],
)
def test_what_cannot_be_is_an_error(attributes: list[tuple[str, bytes, int]], version: int) -> None:
    with pytest.raises(ValueError, match=r"name|long"):
        attributes_of(entry(*attributes), 4096, version)


def test_a_value_in_blocks_of_its_own_is_an_error_in_the_old_version() -> None:
    assert attributes_of(entry(("user.a", bytes(3000), 3000)), 4096, 4)
    with pytest.raises(ValueError, match="blocks of its own"):
        attributes_of(entry(("user.a", bytes(3072), 3072)), 4096, 4)
