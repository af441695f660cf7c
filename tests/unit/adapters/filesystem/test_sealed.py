"""What a guest encrypted file by file is named as that, and is never clean, nor a digest of anything."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from pathlib import Path
from typing import Final

import pytest
from blake3 import blake3

from fakes.mounts import mounted
from fakes.scanner import MemoryScanner
from korora.adapters.filesystem.sandboxed import SandboxedFiles
from korora.adapters.filesystem.sealed import ENCRYPTED
from korora.agents.integrity.malware.examination import Examination, Limits
from korora.model.files import Begun, Entire, FileRecord, Piece, Problem, Told
from korora.model.image import Format, ImageFiles
from korora.model.scan import Answer, Rule
from korora.wiring.files_inside import FilesInside
from korora.wiring.image_files import read_from
from korora.wiring.scanning import Engines

ADD_KEY: Final = 0xC0506617
SET_POLICY: Final = 0x800C6613
"""The kernel's FS_IOC_ADD_ENCRYPTION_KEY and FS_IOC_SET_ENCRYPTION_POLICY (include/uapi/linux/fscrypt.h)."""
NEEDLE: Final = b"needle"


def run(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True, timeout=120)
    return done.stdout


def made(image: Path, *options: str, root: Path | None = None) -> Path:
    with image.open("wb") as file:
        file.truncate(32 << 20)
    run("mkfs.ext4", "-q", *options, *(("-d", root) if root else ()), image)
    return image


def encrypt_what_comes(root: Path, folder: Path) -> None:
    key = struct.pack("<II32sII32s", 2, 0, b"", 64, 0, b"") + os.urandom(64)
    descriptors = [os.open(root, os.O_RDONLY), os.open(folder, os.O_RDONLY)]
    try:
        answer = bytearray(key)
        fcntl.ioctl(descriptors[0], ADD_KEY, answer)
        policy = struct.pack("<BBBBB3s16s", 2, 1, 4, 3, 0, b"", bytes(answer[8:24]))
        fcntl.ioctl(descriptors[1], SET_POLICY, policy)
    except OSError as error:
        pytest.skip(f"this kernel encrypts no files: {error}")
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Linux itself encrypted what is in `private`, by its own rules."""
    folder = tmp_path_factory.mktemp("sealed")
    disk = made(folder / "disk.img", "-O", "encrypt")
    with mounted(disk, folder / "mnt") as root:
        (root / "open").write_bytes(b"nothing here")
        (root / "private").mkdir()
        encrypt_what_comes(root, root / "private")
        (root / "private" / "secret").write_bytes(NEEDLE * 1000)
        (root / "private" / "empty").touch()
        (root / "private" / "link").symlink_to("secret")
        (root / "private" / "deep").mkdir()
        (root / "private" / "deep" / "more").write_bytes(b"more")
    return disk


def walked(image: Path, *, pieces: bool = False, digests: bool = True) -> list[Told]:
    return list(SandboxedFiles(120.0).walk(ImageFiles(image, Format.RAW), pieces=pieces, digests=digests))


def records(told: list[Told]) -> dict[bytes, FileRecord]:
    return {one.path: one for one in told if isinstance(one, FileRecord)}


@pytest.mark.parametrize("digests", [True, False])
def test_all_that_linux_encrypted_is_named_as_that_and_nothing_else_is(image: Path, digests: bool) -> None:
    told = walked(image, pieces=True, digests=digests)
    found = records(told)
    inside = {path for path in found if path.startswith(b"/private")}
    assert sorted(found[path].kind for path in inside) == ["directory"] * 2 + ["file"] * 3 + ["symlink"]
    assert {path for path, one in found.items() if one.problem == ENCRYPTED} == inside
    assert {one.problem for one in found.values()} == {"", ENCRYPTED}
    for path in inside:
        one = found[path]
        assert (one.blake3, one.md5, one.sha256, one.target) == (None, None, None, b"")
    assert [one.path for one in told if isinstance(one, Begun | Entire)] == [b"/open"]
    assert not [one for one in told if isinstance(one, Piece)]


def test_there_is_no_digest_of_a_disk_on_which_something_is_encrypted(image: Path) -> None:
    reading = read_from(walked(image), lambda _: None)
    assert reading.digest.root() is None
    assert ENCRYPTED in {one.problem for one in reading.digest.problems}


def test_a_scan_says_unknown_of_what_is_encrypted_and_tells_of_the_folders(image: Path) -> None:
    examination = Examination([MemoryScanner(NEEDLE)], limits=Limits(file_s=60, parallel=2))
    inside = FilesInside(
        ImageFiles(image, Format.RAW), Engines(Rule.ANY, (), (), examination), contents=(), digests=False
    )
    found = {one.name: one for one in inside.look()}
    assert found.pop("volume 1: /open").verdict.answer is Answer.CLEAN
    assert len(found) == 3
    for one in found.values():
        assert one.verdict.answer is Answer.UNKNOWN
        assert ENCRYPTED in one.answers[0].words
    assert "/private" in {one.where for one in inside.unread() if one.problem == ENCRYPTED}


@pytest.mark.parametrize(
    "options",
    [
        ("-O", "encrypt"),
        ("-O", "encrypt,^64bit", "-b", "1024"),
        ("-O", "encrypt,64bit", "-b", "1024", "-g", "1024"),
        ("-O", "encrypt,^metadata_csum", "-I", "128", "-b", "4096"),
        ("-O", "encrypt,inline_data"),
        ("-O", "encrypt,meta_bg,^resize_inode"),
        ("-O", "encrypt,meta_bg,^resize_inode", "-b", "1024", "-g", "256"),
        ("-O", "encrypt,meta_bg,^resize_inode,^flex_bg,^64bit", "-b", "1024", "-g", "256", "-N", "2048"),
        (
            "-O",
            "encrypt,meta_bg,^resize_inode,^flex_bg,^sparse_super",
            "-b",
            "2048",
            "-g",
            "512",
            "-N",
            "512",
        ),
    ],
)
def test_however_the_file_system_is_made_the_flag_of_each_inode_is_found(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """The flag is set by e2fsprogs, which knows where inodes lie."""
    (tmp_path / "root").mkdir()
    names = [f"{number:03}" for number in range(300)]
    for name in names:
        (tmp_path / "root" / name).write_bytes(name.encode())
    disk = made(tmp_path / "disk.img", *options, root=tmp_path / "root")
    chosen = names[::37]
    extents = 0 if "inline_data" in options[1] else 0x80000
    commands = "".join(f"set_inode_field /{name} flags {extents | 0x800:#x}\n" for name in chosen)
    (tmp_path / "commands").write_text(commands)
    run("debugfs", "-w", "-f", tmp_path / "commands", disk)
    found = records(walked(disk))
    assert {path for path, one in found.items() if one.problem == ENCRYPTED} == {
        b"/" + name.encode() for name in chosen
    }
    assert {one.problem for one in found.values()} == {"", ENCRYPTED}


@pytest.mark.parametrize("name", [b"a/b/c/dd", b"a\0b\0c\0d\0", b"../../..", b"OTHERNAM"])
def test_an_encrypted_name_may_be_of_any_bytes(tmp_path: Path, name: bytes) -> None:
    folder = tmp_path / "root" / "folder"
    folder.mkdir(parents=True)
    for one in ("SOMENAME", "OTHERNAM"):
        (folder / one).write_bytes(b"here")
    disk = made(tmp_path / "disk.img", "-O", "encrypt", root=tmp_path / "root")
    (tmp_path / "commands").write_text(
        "".join(
            f"set_inode_field /{one} flags 0x80800\n"
            for one in ("folder/SOMENAME", "folder/OTHERNAM", "folder")
        )
    )
    run("debugfs", "-w", "-f", tmp_path / "commands", disk)
    disk.write_bytes(disk.read_bytes().replace(b"SOMENAME", name))
    told = walked(disk)
    inside = [one for one in told if isinstance(one, FileRecord) and one.path.startswith(b"/folder")]
    assert len(inside) == 3
    assert {one.problem for one in inside} == {ENCRYPTED}
    assert not [one for one in told if isinstance(one, Problem)]


def test_where_it_cannot_be_known_every_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "file").write_bytes(b"x")
    disk = made(tmp_path / "disk.img", "-O", "encrypt,meta_bg,^resize_inode", root=tmp_path / "root")
    with disk.open("r+b") as file:
        file.seek(1024 + 0xFE)  # how long a descriptor is
        file.write(struct.pack("<H", 31))
    try:
        found = records(walked(disk)).get(b"/file")
    except AssertionError:
        found = None
    assert found is None or found.problem


@pytest.mark.parametrize("features", ["meta_bg", "meta_bg,encrypt"])
def test_inodes_of_groups_that_the_reader_looks_for_elsewhere_are_problems_and_no_other_is(
    tmp_path: Path, features: str
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for number in range(300):
        (root / f"{number:03}").write_bytes(f"{number:03}".encode())
    options = ("-O", f"{features},^resize_inode,^flex_bg", "-b", "1024", "-g", "256", "-N", "1024")
    disk = made(tmp_path / "disk.img", *options, root=root)
    inodes, in_a_group, in_a_block = {}, 8, 16
    for line in filter(None, run("debugfs", "-R", "ls -l /", disk).splitlines()):
        words = line.split()
        inodes[b"/" + words[-1].encode()] = int(words[0])
    for pieces in (False, True):
        found = {
            path: one
            for path, one in records(walked(disk, pieces=pieces, digests=not pieces)).items()
            if path in inodes and one.kind != "directory"
        }
        assert len(found) == 300
        for path, one in found.items():
            elsewhere = (inodes[path] - 1) // in_a_group >= in_a_block
            assert bool(one.problem) == elsewhere, path
            if not pieces and not elsewhere:
                assert one.blake3 == blake3(path[1:]).hexdigest()


def test_without_the_feature_there_is_nothing_encrypted_and_nothing_to_know(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "file").write_bytes(b"x")
    disk = made(tmp_path / "disk.img", "-O", "meta_bg,^resize_inode", root=tmp_path / "root")
    assert records(walked(disk))[b"/file"].problem == ""
