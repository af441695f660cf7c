"""What libraries complain of reaches a person in words of his own."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.volumes import blank, run
from korora.adapters.filesystem.complaints import MAX_CHARS, plain
from korora.adapters.filesystem.disk import Disk
from korora.adapters.filesystem.walker import told_of
from korora.model.files import FileRecord, Problem, Told

MIB = 1 << 20
INTERNAL = re.compile(
    r"tsk|\w+\.cpp|FS_Info|File_read|pyfs|libfs|libbfio|pyfsext|\w+Error\(|0x0000", re.IGNORECASE
)
OPENED = (
    "FS_Info_Con: (tsk3.cpp:327) Unable to open the image as a filesystem at offset: 0x00000000 with error: "
)
READ = "File_read_random: (tsk3.cpp:731) Read error: Error reading image file "
BEYOND = "(tsk_fs_read: Offset missing in partial image: 9)) (tsk_fs_attr_read_type: offset: 9  Len: 5)"
FOLDER = "Directory_Con: (tsk3.cpp:432) Unable to open directory: General file system error (fatfs_x: 7)"
NEW = "File_Con: (tsk3.cpp:1) Unable to open file: tsk_fs_x: Some new thing"
EXT = "pyfsext_volume_open_file_object: unable to open volume. "
FEATURES = (
    "libfsext_superblock_read_data: unsupported incompatible features flags: 0x6."
    " libfsext_superblock_read_file_io_handle: unable to read superblock at offset: 1024 (0x00000400)."
)
COPY = (
    "libfsext_superblock_read_file_io_handle: unable to read superblock at offset: 25166848 (0x1800400)."
    " libfsext_internal_volume_read_block_groups: unable to read block group: 3."
)
EIO = (
    "pyfsxfs_volume_get_root_directory: unable to retrieve root. pyfsxfs_file_object_read_buffer: unable to"
    " read from file object with error: OSError('bytes 1 to 2 of the disk cannot be read: EIO'). libbfio_x: y"
)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (OPENED + "Cannot determine file system type", "no file system that is known here"),
        (OPENED + "Possible encryption detected (High entropy (8.00))", "looks encrypted, or like noise"),
        (OPENED + "Multiple file system types detected (NTFS or HFS)", "more than one file system"),
        (READ + BEYOND, "beyond the end of the volume"),
        (READ + "(ntfs_dinode_load: 7)", "a part of it cannot be read"),
        (FOLDER, "what it says of itself is damaged"),
        (NEW, "it cannot be read (Some new thing)"),
        (EXT + FEATURES, "features that are not read (unsupported incompatible features flags: 0x6)"),
        (EXT + COPY, "one of its superblocks is damaged, or beyond the end of the volume"),
        (EIO, "bytes 1 to 2 of the disk cannot be read: EIO"),
    ],
)
def test_a_librarys_complaint_is_told_in_words_for_who_never_heard_of_it(said: str, told: str) -> None:
    assert told in plain(said)
    assert not INTERNAL.search(plain(said))


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_whatever_is_said_is_told_on_one_line_in_bounds(text: str) -> None:
    for said in (text, OPENED + text, EXT + text):
        assert len(plain(said)) <= MAX_CHARS
        assert "\n" not in plain(said)


def test_words_that_are_no_librarys_stay_as_they_are() -> None:
    assert plain("the checksum of the superblock is wrong") == "the checksum of the superblock is wrong"


# -- disks --------------------------------------------------------------------------------------------------


def told(image: Path, *failing: tuple[int, int]) -> list[Told]:
    """Of a disk that gives an error for these bytes, from and to."""
    size = image.stat().st_size

    def fetch(offset: int, length: int) -> bytes:
        if any(offset < end and begin < offset + length for begin, end in failing):
            raise OSError(f"bytes {offset} to {offset + length} of the disk cannot be read: EIO")
        return os.pread(descriptor, length, offset)

    descriptor = os.open(image, os.O_RDONLY)
    try:
        return list(told_of(Disk(fetch, size), ()))
    finally:
        os.close(descriptor)


def problems(said: list[Told]) -> list[Problem]:
    found = [one for one in said if isinstance(one, Problem)]
    found += [
        Problem(repr(one.path), one.problem) for one in said if isinstance(one, FileRecord) and one.problem
    ]
    assert not [one for one in found if INTERNAL.search(one.problem)], found
    return found


@pytest.fixture
def ext4(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"content")
    image = blank(tmp_path / "ext4.raw", 16)
    run("mkfs.ext4", "-q", "-d", tree, image)
    return image


@pytest.fixture
def two(tmp_path: Path, ext4: Path) -> Path:
    """The same volume twice, in partitions of an MBR."""
    image = blank(tmp_path / "two.raw", 40)
    with image.open("r+b") as file:
        for number, begin in enumerate((2048, 2048 + 32768)):
            file.seek(446 + 16 * number)
            file.write(
                bytes([0, 0, 0, 0, 0x83, 0, 0, 0])
                + begin.to_bytes(4, "little")
                + (32768).to_bytes(4, "little")
            )
            file.seek(begin * 512)
            file.write(ext4.read_bytes())
        file.seek(510)
        file.write(b"\x55\xaa")
    return image


def test_a_volume_whose_beginning_cannot_be_read_hides_no_other(two: Path) -> None:
    assert {one.volume for one in told(two) if isinstance(one, FileRecord)} == {1, 2}
    said = told(two, (MIB, MIB + 1))
    assert {one.volume for one in said if isinstance(one, FileRecord)} == {2}
    (problem,) = problems(said)
    assert problem.where.startswith("volume 1")
    assert "cannot be read: EIO" in problem.problem


@pytest.mark.parametrize("name", ["ext4", "two"])
def test_a_disk_whose_beginning_cannot_be_read_is_a_problem_and_no_empty_one(
    name: str, request: pytest.FixtureRequest
) -> None:
    said = told(request.getfixturevalue(name), (0, 512))
    assert not [one for one in said if isinstance(one, FileRecord)]
    (problem,) = problems(said)
    assert "cannot be read: EIO" in problem.problem


def damaged_superblock(image: Path) -> None:
    with image.open("r+b") as file:
        file.seek(1024 + 0x60)
        file.write(bytes([0xFF]) * 4)


def cut_short(image: Path) -> None:
    os.truncate(image, 5 * MIB)


def noise(image: Path) -> None:
    image.write_bytes(os.urandom(MIB))


def text(image: Path) -> None:
    image.write_bytes(b"not a disk at all\n" * 100_000)


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        (damaged_superblock, "superblock is damaged"),
        (cut_short, "damaged|beyond the end"),
        (noise, "no file system that is known here.*(encrypted|damaged)"),
        (text, "no file system that is known here"),
    ],
)
def test_what_is_no_file_system_or_a_damaged_one_is_told_in_our_own_words(
    ext4: Path, deed: Callable[[Path], None], words: str
) -> None:
    deed(ext4)
    found = problems(told(ext4))
    assert found
    assert any(re.search(words, one.problem) for one in found), found
