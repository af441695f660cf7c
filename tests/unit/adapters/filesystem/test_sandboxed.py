"""Real file systems, made by their own tools, against the tree they were made of; and hostile ones."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from korora.adapters.filesystem import sandboxed
from korora.adapters.filesystem.sandboxed import SandboxedFiles
from korora.errors import IntegrityError
from korora.model.files import (
    MAX_CONTENT_BYTES,
    MAX_GATHERED_BYTES,
    MAX_PIECE_BYTES,
    Begun,
    Beside,
    Content,
    Done,
    Ended,
    Entire,
    FileRecord,
    Piece,
    Problem,
    Told,
    Volume,
)
from korora.model.image import Format, ImageFiles

MIB = 1 << 20
EVERYWHERE = (Beside("md5", b"/"), Beside("sha256", b"/"))
ODD_NAME = b"bad\xffname"
LONG_TARGET = "x" * 200
PROTO = """/
0 0
d--755 0 0
etc d--755 0 0
  passwd ---644 0 0 {file}
  tty c--620 0 5 5 1
  link l--777 0 0 passwd
$
su -u-755 0 0 {file}
$
"""


def run(*command: str | Path, **more: str) -> None:
    subprocess.run([*map(str, command)], check=True, capture_output=True, text=True, timeout=120, **more)  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "tree"
    (root / "etc" / "deep" / "er").mkdir(parents=True)
    (root / "etc" / "passwd").write_text("root\n")
    (root / "etc" / "deep" / "er" / "large").write_bytes(random.Random(1).randbytes(3 * MIB + 17))
    (root / "empty").touch()
    (root / "su").write_bytes(b"program")
    (root / "su").chmod(0o4755)
    os.link(root / "su", root / "hard")
    (root / "short").symlink_to("/etc/passwd")
    (root / "long").symlink_to(LONG_TARGET)
    os.mknod(root / "terminal", stat.S_IFCHR | 0o620, os.makedev(5, 1))
    os.mknod(root / "disk", stat.S_IFBLK | 0o660, os.makedev(8, 3))
    os.mkfifo(root / "pipe")
    os.chown(root / "empty", 1000, 2000)
    os.setxattr(root / "su", "user.note", b"y")
    os.setxattr(root / "su", "security.capability", b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12))
    with (root / "sparse").open("wb") as file:
        file.truncate(5 * MIB)
        file.seek(4 * MIB)
        file.write(b"end")
    Path(os.fsdecode(os.fsencode(root) + b"/" + ODD_NAME)).write_text("odd")
    return root


@pytest.fixture(scope="module")
def ext4(tree: Path) -> Path:
    image = tree.parent / "ext4.img"
    make(image, 32)
    run("mkfs.ext4", "-q", "-d", tree, image)
    return image


def make(image: Path, mebibytes: int) -> None:
    with image.open("wb") as file:
        file.truncate(mebibytes * MIB)


def walked(image: Path, contents: tuple[bytes, ...] = (), within_s: float = 120.0) -> list[Told]:
    return list(SandboxedFiles(within_s).walk(ImageFiles(image, Format.RAW), contents, beside=EVERYWHERE))


def files_of(told: list[Told]) -> dict[bytes, FileRecord]:
    return {one.path: one for one in told if isinstance(one, FileRecord)}


def problems_of(told: list[Told]) -> list[Problem]:
    return [one for one in told if isinstance(one, Problem)]


def truth(root: Path) -> Iterator[tuple[bytes, os.stat_result, Path]]:
    above = os.fsencode(root)
    for folder, folders, names in os.walk(above):
        for name in (*folders, *names):
            path = os.path.join(folder, name)  # noqa: PTH118  bytes
            yield path[len(above) :], os.lstat(path), Path(os.fsdecode(path))


def test_ext4_is_told_as_the_tree_it_was_made_of(tree: Path, ext4: Path) -> None:
    told = walked(ext4)
    assert problems_of(told) == []
    assert isinstance(told[0], Volume)
    assert (told[0].filesystem, told[0].files, told[0].start) == ("ext4", True, 0)
    assert isinstance(told[-1], Done)
    found = files_of(told)
    assert told[-1].files == len(found)
    expected = {path: (seen, where) for path, seen, where in truth(tree)}
    assert found.keys() - {b"/lost+found"} == expected.keys()
    for path, (seen, where) in expected.items():
        file = found[path]
        assert (file.mode, file.owner, file.group) == (
            stat.S_IMODE(seen.st_mode),
            seen.st_uid,
            seen.st_gid,
        ), path
        if stat.S_ISREG(seen.st_mode):
            content = where.read_bytes()
            assert (file.kind, file.size, file.links) == ("file", seen.st_size, seen.st_nlink)
            assert file.blake3 == blake3(content).hexdigest()
            assert file.md5 == hashlib.md5(content, usedforsecurity=False).hexdigest()
            assert file.sha256 == hashlib.sha256(content).hexdigest()
        if stat.S_ISLNK(seen.st_mode):
            assert (file.kind, file.target) == ("symlink", os.fsencode(where.readlink()))
    assert ODD_NAME in {path[1:] for path in found}


def test_devices_pipes_and_attributes_of_ext4_are_told(ext4: Path) -> None:
    found = files_of(walked(ext4))
    assert (found[b"/terminal"].kind, found[b"/terminal"].device) == ("character-device", (5, 1))
    assert (found[b"/disk"].kind, found[b"/disk"].device) == ("block-device", (8, 3))
    assert found[b"/pipe"].kind == "fifo"
    attributes = found[b"/su"].xattrs
    assert attributes is not None
    assert attributes["user.note"] == hashlib.sha256(b"y").hexdigest()
    assert "security.capability" in attributes
    assert found[b"/hard"].xattrs == attributes  # another name of the same file
    assert found[b"/empty"].xattrs == {}


def test_the_content_of_what_is_asked_for_comes_right_after_it(tree: Path, ext4: Path) -> None:
    told = walked(ext4, (b"/etc/*",))
    contents = {one.path: one.content for one in told if isinstance(one, Content)}
    assert contents[b"/etc/passwd"] == b"root\n"
    assert contents[b"/etc/deep/er/large"] == (tree / "etc/deep/er/large").read_bytes()
    places = [one.path if isinstance(one, FileRecord) else b"content of " + one.path
              for one in told if isinstance(one, FileRecord | Content)]  # fmt: skip
    assert places.index(b"content of /etc/passwd") == places.index(b"/etc/passwd") + 1


def test_a_large_content_comes_in_parts_and_one_beyond_the_bound_is_a_problem(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    large = random.Random(2).randbytes(MAX_CONTENT_BYTES + 3 * MIB + 5)
    (root / "large").write_bytes(large)
    (root / "exact").write_bytes(large[:MAX_CONTENT_BYTES])
    with (root / "beyond").open("wb") as file:
        file.truncate(MAX_GATHERED_BYTES + 1)
    make(tmp_path / "image", 64)
    run("mkfs.ext4", "-q", "-d", root, tmp_path / "image")
    told = walked(tmp_path / "image", (b"/*",))
    parts = [one for one in told if isinstance(one, Content)]
    of_large = [one for one in parts if one.path == b"/large"]
    assert [(one.offset, one.whole) for one in of_large] == [(0, False), (MAX_CONTENT_BYTES, False)]
    assert b"".join(one.content for one in of_large) == large
    assert [one.whole for one in parts if one.path == b"/exact"] == [True]
    assert [one.problem for one in problems_of(told)] == [f"larger than {MAX_GATHERED_BYTES} bytes"]


def test_xfs_is_told_as_it_was_made(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_bytes(b"root\n" * 3000)
    (tmp_path / "proto").write_text(PROTO.format(file=tmp_path / "passwd"))
    make(tmp_path / "xfs.img", 320)
    run("mkfs.xfs", "-q", "-p", tmp_path / "proto", tmp_path / "xfs.img")
    told = walked(tmp_path / "xfs.img")
    found = files_of(told)
    assert problems_of(told) == []
    assert found.keys() == {b"/etc", b"/etc/passwd", b"/etc/tty", b"/etc/link", b"/su"}
    assert found[b"/etc/passwd"].blake3 == blake3(b"root\n" * 3000).hexdigest()
    assert (found[b"/etc/link"].kind, found[b"/etc/link"].target) == ("symlink", b"passwd")
    assert (found[b"/etc/tty"].kind, found[b"/etc/tty"].device) == ("character-device", (5, 1))
    assert found[b"/su"].mode == 0o4755


def test_fat_and_ntfs_are_told_with_their_contents(tmp_path: Path) -> None:
    (tmp_path / "note").write_bytes(b"hello" * 5000)
    make(tmp_path / "fat.img", 16)
    run("mkfs.vfat", tmp_path / "fat.img")
    run("mcopy", "-i", tmp_path / "fat.img", tmp_path / "note", "::A long name.txt")
    make(tmp_path / "ntfs.img", 16)
    run("mkntfs", "-q", "-F", "-f", tmp_path / "ntfs.img")
    run("ntfscp", tmp_path / "ntfs.img", tmp_path / "note", "/A long name.txt")
    for name, called in (("fat.img", "fat16"), ("ntfs.img", "ntfs")):
        told = walked(tmp_path / name)
        assert isinstance(told[0], Volume)
        assert told[0].filesystem == called
        assert problems_of(told) == []
        assert files_of(told)[b"/A long name.txt"].blake3 == blake3(b"hello" * 5000).hexdigest()


def test_named_streams_of_ntfs_are_files_and_packed_content_is_a_problem(tmp_path: Path) -> None:
    stream = random.Random(3).randbytes(300_000)
    (tmp_path / "note").write_bytes(b"hello" * 5000)
    (tmp_path / "stream").write_bytes(stream)
    image = tmp_path / "ntfs.img"
    make(image, 16)
    run("mkntfs", "-q", "-F", "-f", image)
    for name in ("/plain", "/packed", "/$looks-like-its-own"):
        run("ntfscp", image, tmp_path / "note", name)
    run("ntfscp", "-N", "hidden", image, tmp_path / "stream", "/plain")
    run("ntfscp", "-N", "hidden", image, tmp_path / "stream", "/$looks-like-its-own")
    run("ntfscp", "-N", "WofCompressedData", image, tmp_path / "stream", "/packed")
    told = walked(image)
    found = files_of(told)
    assert problems_of(told) == []
    assert found[b"/plain"].blake3 == blake3(b"hello" * 5000).hexdigest()
    assert (found[b"/plain:hidden"].kind, found[b"/plain:hidden"].size) == ("file", len(stream))
    assert found[b"/plain:hidden"].blake3 == blake3(stream).hexdigest()
    assert (found[b"/packed"].blake3, "packed by Windows" in found[b"/packed"].problem) == (None, True)
    own = [path for path in found if path.startswith(b"/$") and b":" in path]
    assert own == [b"/$looks-like-its-own:hidden"]
    assert in_pieces(image)[b"/plain:hidden"][:2] == (stream, "")


def test_partitions_of_a_gpt_are_volumes_of_their_own(tmp_path: Path, ext4: Path) -> None:
    disk = tmp_path / "disk.img"
    make(disk, 80)
    table = "label: gpt\nstart=2048, size=65536\nstart=69632, size=32768\n"
    run("sfdisk", "-q", disk, input=table)
    with disk.open("r+b") as file:
        file.seek(2048 * 512)
        file.write(ext4.read_bytes())
    told = walked(disk)
    volumes = [one for one in told if isinstance(one, Volume)]
    assert [(one.start, one.filesystem, one.files) for one in volumes] == [
        (2048 * 512, "ext4", True),
        (69632 * 512, "unknown", False),
    ]
    assert problems_of(told) == []  # nothing but zeros is in the second
    assert b"/etc/passwd" in files_of(told)


def test_a_logical_volume_is_told_as_what_is_in_it(tmp_path: Path, ext4: Path) -> None:
    disk = tmp_path / "lvm.img"
    make(disk, 64)
    attached = subprocess.run(["losetup", "-f", "--show", disk], capture_output=True, text=True, check=False)
    if attached.returncode:
        pytest.skip(f"no loop device to make a volume group on: {attached.stderr.strip()}")
    device = attached.stdout.strip()
    only = f'devices{{filter=["a|{device}|","r|.*|"] use_devicesfile=0}}'
    try:
        for command in (
            ["pvcreate", "-ff", "-y", device],
            ["vgcreate", "korora-test", device],
            ["lvcreate", "-an", "-Zn", "-Wn", "-y", "-L", "32M", "-n", "root", "korora-test"],
        ):
            run("lvm", command[0], "--driverloaded", "n", "--config", only, *command[1:])
    finally:
        run("losetup", "-d", device)
    with disk.open("r+b") as file:
        file.seek(MIB)  # where the first extent begins
        file.write(ext4.read_bytes())
    told = walked(disk)
    assert problems_of(told) == []
    assert [one.filesystem for one in told if isinstance(one, Volume)] == ["ext4"]
    assert b"/etc/passwd" in files_of(told)


# -- hostile ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "magic", "called"),
    [(0x10040, b"_BHRfS_M", "btrfs"), (0, b"LUKS\xba\xbe", "luks"), (100, b"something", "unknown")],
)
def test_what_is_not_read_is_a_problem(tmp_path: Path, offset: int, magic: bytes, called: str) -> None:
    make(tmp_path / "disk", 8)
    with (tmp_path / "disk").open("r+b") as file:
        file.seek(offset)
        file.write(magic)
    told = walked(tmp_path / "disk")
    assert [(one.filesystem, one.files) for one in told if isinstance(one, Volume)] == [(called, False)]
    assert len(problems_of(told)) == 1


def test_a_folder_that_leads_into_itself_is_a_problem_and_ends(tmp_path: Path, ext4: Path) -> None:
    image = tmp_path / "loop.img"
    shutil.copy(ext4, image)
    run("debugfs", "-w", "-R", "ln /etc /etc/deep/er/again", image)
    told = walked(image)
    assert any("leads back into itself" in one.problem for one in problems_of(told))
    assert isinstance(told[-1], Done)


def test_partitions_that_overlap_or_reach_beyond_the_disk_are_problems(tmp_path: Path, ext4: Path) -> None:
    disk = tmp_path / "disk"
    make(disk, 64)
    entry = (0x83).to_bytes(1, "little").rjust(5, b"\x00").ljust(8, b"\x00")
    table = b"".join(
        entry + start.to_bytes(4, "little") + length.to_bytes(4, "little")
        for start, length in ((2048, 65536), (4096, 65536), (100_000, 1_000_000))
    )
    with disk.open("r+b") as file:
        file.seek(446)
        file.write(table.ljust(64, b"\x00") + b"\x55\xaa")
        file.seek(2048 * 512)
        file.write(ext4.read_bytes())
    told = walked(disk)
    assert {one.problem for one in problems_of(told)} >= {"it overlaps another one"}
    assert isinstance(told[-1], Done)


def test_what_lies_beyond_the_end_of_a_truncated_image_is_not_said_to_be_read(
    tmp_path: Path, ext4: Path
) -> None:
    image = tmp_path / "short.img"
    image.write_bytes(ext4.read_bytes()[: 6 * MIB])
    told = walked(image)
    assert problems_of(told) or any(one.problem for one in files_of(told).values())


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_file_system_comes_to_an_end(tmp_path: Path, ext4: Path, seed: int) -> None:
    chance = random.Random(seed)
    content = bytearray(ext4.read_bytes())
    for _ in range(200):
        content[chance.randrange(min(len(content), 3 * MIB))] = chance.randrange(256)
    (tmp_path / "bad.img").write_bytes(content)
    told = walked(tmp_path / "bad.img")
    assert isinstance(told[-1], Done | Problem)
    assert len(told) < 10_000
    unread = [one for one in files_of(told).values() if one.kind == "file" and one.blake3 is None]
    assert all(one.problem for one in unread)


def test_a_reader_that_takes_too_long_is_ended_and_the_rest_is_unknown(ext4: Path) -> None:
    told = walked(ext4, within_s=0.0)
    assert [type(one) for one in told] == [Problem]
    assert "in time" in problems_of(told)[0].problem


def children() -> set[str]:
    return {pid for one in Path("/proc/self/task").glob("*/children") for pid in one.read_text().split()}


def test_an_image_that_qemu_cannot_open_leaves_no_reader_behind(tmp_path: Path) -> None:
    """The reader has started by then, and waits to be told where the disk is."""
    before = children()
    (tmp_path / "disk.qcow2").write_bytes(b"QFI\xfb" + bytes(4096))
    with pytest.raises(IntegrityError, match="cannot be read as qcow2"):
        next(SandboxedFiles(120.0).walk(ImageFiles(tmp_path / "disk.qcow2", Format.QCOW2)))
    assert children() <= before


def test_a_disk_of_which_not_all_bytes_lie_in_its_file_is_read_through_qemu(
    tmp_path: Path, tree: Path, ext4: Path
) -> None:
    run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", ext4, tmp_path / "packed.qcow2")
    packed = ImageFiles(tmp_path / "packed.qcow2", Format.QCOW2)
    told = list(SandboxedFiles(120.0).walk(packed, beside=EVERYWHERE))
    assert problems_of(told) == []
    assert told[1:] == walked(ext4)[1:]


def test_an_empty_disk_has_no_files(tmp_path: Path) -> None:
    make(tmp_path / "disk", 8)
    told = walked(tmp_path / "disk")
    assert [type(one) for one in told] == [Volume, Done]


# -- contents in pieces -------------------------------------------------------------------------------------


def in_pieces(image: Path, *, digests: bool = True) -> dict[bytes, tuple[bytes, str, FileRecord]]:
    """What came of each file, how it ended, and the record right after it."""
    told = list(SandboxedFiles(120.0).walk(ImageFiles(image, Format.RAW), pieces=True, digests=digests))
    found: dict[bytes, tuple[bytes, str, FileRecord]] = {}
    for at, one in enumerate(told):
        if isinstance(one, Entire):
            record = told[at + 1]
            assert isinstance(record, FileRecord)
            assert (record.path, record.size) == (one.path, len(one.data))
            found[one.path] = (one.data, "", record)
        if not isinstance(one, Begun):
            continue
        came = b""
        for following in told[at + 1 :]:
            at += 1  # noqa: PLW2901
            if not isinstance(following, Piece):
                break
            assert 0 < len(following.data) <= MAX_PIECE_BYTES
            came += following.data
        ended, record = told[at], told[at + 1]
        assert isinstance(ended, Ended)
        assert isinstance(record, FileRecord)
        assert (record.path, record.size) == (one.path, one.size)
        found[one.path] = (came, ended.problem, record)
    return found


def test_the_content_of_every_file_comes_in_pieces_before_its_record(tree: Path, ext4: Path) -> None:
    found = in_pieces(ext4)
    expected = {path: where for path, seen, where in truth(tree) if stat.S_ISREG(seen.st_mode)}
    assert found.keys() == expected.keys()
    for path, (came, problem, record) in found.items():
        assert (came, problem) == (expected[path].read_bytes(), "")
        assert record.blake3 == blake3(came).hexdigest()


def test_who_wants_no_digests_has_the_same_content_and_the_rest_of_the_record(ext4: Path) -> None:
    bare = msgspec.structs.replace
    found, all_of_it = in_pieces(ext4, digests=False), in_pieces(ext4)
    assert found == {
        path: (came, problem, bare(record, blake3=None, md5=None, sha256=None, xattrs=None))
        for path, (came, problem, record) in all_of_it.items()
    }


def test_without_being_asked_no_content_is_told(ext4: Path) -> None:
    assert not [one for one in walked(ext4) if isinstance(one, Begun | Piece | Ended | Entire)]


@pytest.mark.parametrize("seed", range(6))
def test_pieces_of_a_damaged_file_system_are_whole_or_end_with_a_problem(
    tmp_path: Path, ext4: Path, seed: int
) -> None:
    chance = random.Random(seed)
    content = bytearray(ext4.read_bytes())
    for _ in range(400):
        content[chance.randrange(3 * MIB)] = chance.randrange(256)
    (tmp_path / "bad.img").write_bytes(content)
    for came, problem, record in in_pieces(tmp_path / "bad.img").values():
        assert problem or (len(came) == record.size and record.blake3 == blake3(came).hexdigest())


def test_who_wants_no_more_is_not_kept_waiting(tmp_path: Path) -> None:
    """The image has a sparse file that takes longer than anybody waits."""
    (tmp_path / "root").mkdir()
    with (tmp_path / "root" / "sparse").open("wb") as file:
        file.truncate(48 << 30)
    make(tmp_path / "disk.img", 64)
    run("mkfs.ext4", "-q", "-d", tmp_path / "root", tmp_path / "disk.img")
    stopped = False
    told = SandboxedFiles().walk(ImageFiles(tmp_path / "disk.img", Format.RAW), stopped=lambda: stopped)
    assert isinstance(next(told), Volume)
    stopped = True
    assert [one.problem for one in told if isinstance(one, Problem)] == ["nobody wants any more"]


# -- the pipe -----------------------------------------------------------------------------------------------


class Writer:
    """A process of which only its output matters: these bytes, in such portions."""

    def __init__(self, content: bytes, portions: list[int]) -> None:
        reading, writing = os.pipe()
        self.stdout = os.fdopen(reading, "rb")
        self._thread = threading.Thread(target=self._write, args=(writing, content, portions), daemon=True)
        self._thread.start()

    def _write(self, writing: int, content: bytes, portions: list[int]) -> None:
        with os.fdopen(writing, "wb", buffering=0) as out:
            at = 0
            for portion in (*portions, len(content)):
                at += out.write(content[at : at + portion]) or 0
            while at < len(content):
                at += out.write(content[at:]) or 0

    def end_of_writing(self) -> None:
        self._thread.join(30)

    def end(self) -> None:
        self.end_of_writing()
        self.stdout.close()


def reading_of(writer: Writer) -> sandboxed._Reading:
    return sandboxed._Reading(writer, time.monotonic() + 60, lambda: False)  # type: ignore[arg-type]


@given(
    st.lists(st.sampled_from([0, 1, 3, 70, 65_535, 65_536, 65_537, 200_000]), max_size=8),
    st.lists(st.integers(1, 100_000), max_size=8),
)
@settings(deadline=None, max_examples=40)
def test_records_come_out_of_the_pipe_as_they_went_in(sizes: list[int], portions: list[int]) -> None:
    records = [random.Random(number).randbytes(size) for number, size in enumerate(sizes)]
    content = b"".join(len(one).to_bytes(4, "big") + one for one in records)
    writer = Writer(content, portions)
    reading = reading_of(writer)
    assert [bytes(reading.record()) for _ in records] == records
    with pytest.raises(EOFError):
        reading.record()
    writer.end()


def test_what_always_has_more_to_tell_is_over_in_time_as_well() -> None:
    writer = Writer(bytes(1000), [])
    writer.end_of_writing()
    reading = sandboxed._Reading(writer, time.monotonic() - 1, lambda: False)  # type: ignore[arg-type]
    with pytest.raises(TimeoutError):
        reading.record()
    writer.end()


@pytest.mark.parametrize("size", [100, 300_000])
def test_a_record_that_is_cut_short_is_an_end_and_no_record(size: int) -> None:
    writer = Writer(size.to_bytes(4, "big") + bytes(size - 1), [])
    with pytest.raises(EOFError, match="ended early"):
        reading_of(writer).record()
    writer.end()
