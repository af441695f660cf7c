"""The order in which a volume's files are told: large ones first, where their contents go to somebody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fakes.mounts import mounted, mounted_by_ntfs_3g
from fakes.volumes import MIB, blank, run
from korora.adapters.filesystem.disk import Disk
from korora.adapters.filesystem.tree import LARGE_BYTES
from korora.adapters.filesystem.walker import told_of
from korora.model.files import Begun, Done, Ended, Entire, FileRecord, Piece, Problem, Told

LARGE = {b"/a/large": LARGE_BYTES, b"/z/larger": LARGE_BYTES + 5}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    disk = blank(folder / "disk.img", 64)
    run("mkfs.ext4", "-q", disk)
    with mounted(disk, folder / "mnt") as root:
        fill(root)
        os.link(root / "a" / "large", root / "z" / "as large")
    return disk


def fill(root: Path) -> None:
    for name in "az":
        (root / name).mkdir()
        (root / name / "small").write_bytes(b"small")
    for path, size in LARGE.items():
        (root / path.decode()[1:]).write_bytes(os.urandom(MIB) + bytes(size - MIB))


def told(image: Path, *, passed_on: bool) -> list[Told]:
    """All of it, with the contents in their places."""
    content = image.read_bytes()
    disk = Disk(lambda at, length: bytes(memoryview(content)[at : at + length]), len(content))
    found: list[Told] = []
    for one in told_of(disk, (), found.append if passed_on else None):
        found.append(one)
    return found


def paths(found: list[Told]) -> list[bytes]:
    return [one.path for one in found if isinstance(one, FileRecord)]


def test_large_files_come_first_the_largest_before_the_others(image: Path) -> None:
    first = paths(told(image, passed_on=True))
    assert first[0] == b"/z/larger"
    assert {*first[1:3]} == {b"/a/large", b"/z/as large"}


def test_where_nobody_takes_contents_files_come_as_they_lie(image: Path) -> None:
    in_order = paths(told(image, passed_on=False))
    assert in_order.index(b"/a") < in_order.index(b"/a/large")
    assert in_order.index(b"/z") < in_order.index(b"/z/larger")


def test_in_either_order_the_same_is_told_and_each_once(image: Path) -> None:
    found = [told(image, passed_on=passed_on) for passed_on in (True, False)]
    once, other = ([one for one in all_ if isinstance(one, FileRecord | Problem)] for all_ in found)
    assert sorted(once, key=repr) == sorted(other, key=repr)
    assert len(set(paths(found[0]))) == len(paths(found[0]))
    assert found[0][-1] == found[1][-1] == Done(len(once))


def test_the_content_of_each_comes_right_before_its_record(image: Path) -> None:
    came, last = 0, b""
    for one in told(image, passed_on=True):
        match one:
            case Begun(path=path):
                came, last = 0, path
            case Piece(data=data):
                came += len(data)
            case Entire(path=path, data=data):
                came, last = len(data), path
            case FileRecord(kind="file", path=path, size=size):
                assert (last, came) == (path, size)
            case Ended(problem=problem):
                assert problem == ""


def test_streams_of_a_large_file_of_ntfs_are_told_once(tmp_path: Path) -> None:
    disk = blank(tmp_path / "ntfs.img", 64)
    run("mkfs.ntfs", "-q", "-F", "-Q", disk)
    with mounted_by_ntfs_3g(disk, tmp_path / "mnt") as root:
        fill(root)
        os.setxattr(root / "z" / "larger", "user.note", b"beside it")
    found = told(disk, passed_on=True)
    named = [path for path in paths(found) if not path.startswith(b"/$")]
    assert named[0] == b"/z/larger"
    assert sorted(named) == sorted(
        [b"/a", b"/a/large", b"/a/small", b"/z", b"/z/larger", b"/z/larger:note", b"/z/small"]
    )
    assert [one for one in found if isinstance(one, Problem)] == []


def test_a_directory_that_leads_back_to_itself_is_told_as_that_once(image: Path, tmp_path: Path) -> None:
    changed = tmp_path / "loop.img"
    changed.write_bytes(image.read_bytes())
    run("debugfs", "-w", "-R", "ln /z /z/again", changed)
    found = told(changed, passed_on=True)
    problems = [one.problem for one in found if isinstance(one, Problem)]
    assert any("leads back into itself" in problem for problem in problems)
    assert paths(found)[0] == b"/z/larger"
    assert len(set(paths(found))) == len(paths(found))
