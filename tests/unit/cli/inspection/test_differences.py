"""`korora image diff` names the files in the chunks that differ, and says what else lies there."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from korora.cli.main import answer
from korora.wiring import image_differences

Captured = pytest.CaptureFixture[str]
MIB: Final = 1 << 20
METADATA: Final = "file-system metadata or free space"
LARGE: Final = random.Random(1).randbytes(6 * MIB)


def run(*command: str | Path) -> None:
    subprocess.run([*map(str, command)], check=True, capture_output=True, timeout=120)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "large").write_bytes(LARGE)
    for number in range(20):
        (tree / f"small{number}").write_bytes(b"%d" % number * 1000)
    image = tmp_path / "one.raw"
    with image.open("wb") as file:
        file.truncate(32 * MIB)
    run("mkfs.ext4", "-q", "-d", tree, image)
    return image


def changed(disk: Path, *requests: str) -> Path:
    """A copy after these requests to debugfs; the same again in qcow2."""
    other, script = disk.with_name("other.raw"), disk.with_name("requests")
    other.write_bytes(disk.read_bytes())
    script.write_text("".join(f"{one}\n" for one in requests))
    run("debugfs", "-w", "-f", script, other)
    converted = disk.with_name("other.qcow2")
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", other, converted)
    return converted


def overwritten(disk: Path, content: bytes, at: int, new: bytes) -> Path:
    """A copy in which that part of the disk where the content stands is another."""
    other = disk.with_name("other.raw")
    data = bytearray(disk.read_bytes())
    place = data.index(content) + at
    data[place : place + len(new)] = new
    other.write_bytes(data)
    return other


def told(capsys: Captured, *words: str | Path) -> tuple[int, Any]:
    capsys.readouterr()
    code = answer(["image", "diff", *map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out)


def names(said: Any) -> dict[str, str]:
    return {file["path"]: file["on"] for one in said["ranges"] for file in one["files"]}


def beside(said: Any) -> set[str]:
    return {words for one in said["ranges"] for words in one["beside"]}


def test_the_file_that_changed_is_named_and_no_neighbour_of_it(disk: Path, capsys: Captured) -> None:
    other = overwritten(disk, b"7" * 1000, 10, b"x")
    code, said = told(capsys, disk, other)
    assert (code, names(said), said["problems"]) == (5, {"/small7": "both"}, [])
    assert said["ranges"][0]["files"] == [{"volume": 1, "path": "/small7", "kind": "file", "on": "both"}]
    assert said["ranges"][0]["beside"] == []
    assert answer(["image", "diff", str(disk), str(other)]) == 5
    assert "volume 1: /small7\n" in capsys.readouterr().out


def test_what_came_and_went_is_on_one_side(disk: Path, capsys: Captured) -> None:
    (disk.with_name("new")).write_bytes(random.Random(2).randbytes(9000))
    other = changed(disk, "rm /small3", f"write {disk.with_name('new')} new")
    code, said = told(capsys, disk, other)
    assert code == 5
    assert names(said)["/new"] == "other"
    assert names(said).keys() <= {"/new", "/small3"}
    assert METADATA in beside(said)


def test_a_mode_that_changed_is_metadata(disk: Path, capsys: Captured) -> None:
    code, said = told(capsys, disk, changed(disk, "set_inode_field /small1 mode 0104755"))
    assert (code, names(said)) == (5, {})
    assert beside(said) == {METADATA}


def test_the_same_disk_has_no_files_that_differ(disk: Path, capsys: Captured) -> None:
    code, said = told(capsys, disk, disk)
    assert (code, said["ranges"], said["problems"]) == (0, [], [])


def test_a_disk_that_is_longer_differs_in_what_the_other_lacks(disk: Path, capsys: Captured) -> None:
    other = disk.with_name("other.raw")
    other.write_bytes(disk.read_bytes() + bytes(MIB))
    code, said = told(capsys, disk, other)
    assert (code, names(said)) == (5, {})
    assert [one["offset"] for one in said["ranges"]] == [32 * MIB]


def test_beyond_what_is_looked_at_closely_files_are_named_by_chunks(
    disk: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = overwritten(disk, LARGE[:1000], 0, bytes(len(LARGE)))
    monkeypatch.setattr(image_differences, "CLOSELY_MAX", 2)
    code, said = told(capsys, disk, other)
    assert code == 5
    assert names(said)["/large"] == "both"
    monkeypatch.setattr(image_differences, "CHUNKS_MAX", 1)
    code, said = told(capsys, disk, other)
    assert [one["problem"] for one in said["problems"]] == ["too much differs to say what lies there"]


def test_what_nobody_reads_is_said_and_the_difference_stands(tmp_path: Path, capsys: Captured) -> None:
    for name in ("a.raw", "b.raw"):
        content = bytearray(8 * MIB)
        content[0x10040:0x10048] = b"_BHRfS_M"
        content[5 * MIB] = len(name) if name == "a.raw" else 1
        (tmp_path / name).write_bytes(content)
    code, said = told(capsys, tmp_path / "a.raw", tmp_path / "b.raw")
    assert (code, said["ranges"][0]["offset"], names(said)) == (5, 5 * MIB, {})
    assert said["ranges"][0]["beside"] == ["volume 1 (btrfs), whose files are not read"]
    assert len(said["problems"]) == 2


def test_hostile_names_cannot_write_on_the_terminal(tmp_path: Path, capsys: Captured) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    Path(os.fsdecode(os.fsencode(tree) + b"/a\xff\x1b[31m\nb")).write_bytes(b"content of it" * 100)
    disk = tmp_path / "one.raw"
    with disk.open("wb") as file:
        file.truncate(16 * MIB)
    run("mkfs.ext4", "-q", "-d", tree, disk)
    other = overwritten(disk, b"content of it" * 100, 0, b"x")
    assert answer(["image", "diff", str(disk), str(other)]) == 5
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "/a\\xff" in text
    assert len(text.splitlines()) == 3
