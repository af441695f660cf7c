"""A btrfs is told as Linux shows it: every name, fact and byte, with every compression and every checksum."""

from __future__ import annotations

import hashlib
import lzma
import os
import random
import stat
import subprocess
from pathlib import Path

import pytest
from blake3 import blake3

from fakes.mounts import mounted
from fakes.volumes import at_one_moment
from korora.adapters.filesystem.sandboxed import SandboxedFiles
from korora.model.files import Content, Done, FileRecord, Problem, Told, Volume
from korora.model.image import Format, ImageFiles

MIB = 1 << 20
COMPRESSIONS = ("zlib", "lzo", "zstd")
MAKING = {
    "crc32c": ("--csum", "crc32c"),
    "xxhash": ("--csum", "xxhash"),
    "sha256, mixed": ("--csum", "sha256", "--mixed"),
    "blake2, small blocks": ("--csum", "blake2", "--nodesize", "4096"),
}
SAMPLE = Path("/usr/share/forensics-samples/fs.btrfs.xz")
ORIGINALS = Path("/usr/share/forensics-samples/original-files")


def run(*command: str | Path) -> None:
    subprocess.run([*map(str, command)], check=True, capture_output=True, text=True, timeout=120)


def made(image: Path, mebibytes: int, *options: str | Path) -> None:
    with image.open("wb") as file:
        file.truncate(mebibytes * MIB)
    run("mkfs.btrfs", "-q", *options, image)


def walked(image: Path, contents: tuple[bytes, ...] = ()) -> list[Told]:
    return list(SandboxedFiles(300.0).walk(ImageFiles(image, Format.RAW), contents))


def files_of(told: list[Told]) -> dict[bytes, FileRecord]:
    return {one.path: one for one in told if isinstance(one, FileRecord)}


def unknown(told: list[Told]) -> list[str]:
    return [one.problem for one in told if isinstance(one, Problem | FileRecord) and one.problem]


def facts(path: bytes, *, copied: bool = False) -> tuple[object, ...]:
    """`copied`: a folder in btrfs has one link, whatever it was copied from."""
    seen = os.lstat(path)
    kind = stat.S_IFMT(seen.st_mode)
    attributes = {
        name: hashlib.sha256(os.getxattr(path, name, follow_symlinks=False)).hexdigest()
        for name in os.listxattr(path, follow_symlinks=False)
    }
    content = Path(os.fsdecode(path)).read_bytes() if kind == stat.S_IFREG else None
    links = 1 if copied and kind == stat.S_IFDIR else seen.st_nlink
    device = os.major(seen.st_rdev), os.minor(seen.st_rdev)
    return (
        (stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid, links, attributes),
        None if content is None else (len(content), blake3(content).hexdigest()),
        os.readlink(path) if kind == stat.S_IFLNK else b"",  # noqa: PTH115  bytes
        device if kind in {stat.S_IFCHR, stat.S_IFBLK} else None,
    )


def told_facts(file: FileRecord) -> tuple[object, ...]:
    return (
        (file.mode, file.owner, file.group, file.links, file.xattrs),
        (file.size, file.blake3) if file.kind == "file" else None,
        file.target,
        file.device,
    )


def truth(root: Path, *, copied: bool = False) -> dict[bytes, tuple[object, ...]]:
    above = os.fsencode(root)
    paths = (
        os.path.join(folder, name)  # noqa: PTH118  bytes
        for folder, folders, names in os.walk(above)
        for name in (*folders, *names)
    )
    return {path[len(above) :]: facts(path, copied=copied) for path in paths}


def fill(root: Path) -> None:
    """What a file system can have, and what is hard to read of it."""
    chance = random.Random(1)
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "er" / "large").write_bytes(chance.randbytes(3 * MIB + 17))
    (root / "empty").touch()
    (root / "inline").write_bytes(b"short")
    (root / "su").write_bytes(b"program" * 1000)
    os.chown(root / "su", 12, 34)
    (root / "su").chmod(0o4755)
    os.link(root / "su", root / "hard")
    (root / "short").symlink_to("/etc/passwd")
    (root / "long").symlink_to("x" * 3000)
    os.setxattr(root / "su", "user.note", b"y")
    os.setxattr(root / "su", "user.long", b"z" * 3000)
    os.setxattr(root / "su", "security.capability", b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12))
    Path(os.fsdecode(os.fsencode(root) + b"/bad\xffname")).write_text("odd")
    for number in range(3000):  # more than a tree block has room for
        (root / "deep" / f"file {number}").write_bytes(str(number).encode() * (number % 50))


def fill_more(root: Path) -> None:
    """What mkfs cannot copy."""
    os.mknod(root / "terminal", stat.S_IFCHR | 0o620, os.makedev(5, 1))
    os.mknod(root / "disk", stat.S_IFBLK | 0o660, os.makedev(259, 70_000))
    os.mkfifo(root / "pipe")
    with (root / "sparse").open("wb") as file:
        file.truncate(20 * MIB)
        file.seek(9 * MIB)
        file.write(b"middle")
    with (root / "reserved").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 5 * MIB)
        os.pwrite(file.fileno(), b"x" * 10_000, MIB)
    (root / "unchecked").touch()
    run("chattr", "+C", root / "unchecked")
    (root / "unchecked").write_bytes(random.Random(2).randbytes(300_000))


def fill_compressed(root: Path, how: str) -> None:
    (root / how).mkdir()
    (root / how / "lines").write_bytes(b"".join(b"%d\n" % number for number in range(200_000)))
    (root / how / "inline").write_bytes(b"abc" * 500)
    (root / how / "odd end").write_bytes(b"yes\n" * 5001)
    (root / how / "random").write_bytes(random.Random(how).randbytes(300_001))
    run("sync", "-f", root)
    with (root / how / "lines").open("r+b") as file:  # what is left of an extent begins in its middle
        file.seek(123_456)
        file.write(b"HELLO" * 999)


def with_subvolumes(root: Path) -> None:
    for command in (
        ["create", root / "sub"],
        ["create", root / "sub" / "nested"],
        ["snapshot", "-r", root / "sub", root / "before"],
        ["snapshot", root, root / "snapshot of all"],
    ):
        (root / "sub" / "file").write_text(str(command)) if (root / "sub").exists() else None
        run("btrfs", "subvolume", *map(str, command))


def test_a_tree_that_mkfs_copied_is_told_as_it_was(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    fill(root)
    made(tmp_path / "image", 200, "--rootdir", root)
    told = walked(tmp_path / "image", (b"/inline",))
    assert unknown(told) == []
    assert [one.filesystem for one in told if isinstance(one, Volume)] == ["btrfs"]
    found = {path: told_facts(file) for path, file in files_of(told).items()}
    assert found == truth(root, copied=True)
    assert told[-1] == Done(len(found))
    assert [one.content for one in told if isinstance(one, Content)] == [b"short"]


@pytest.mark.parametrize("how", MAKING)
def test_what_linux_wrote_is_told_as_linux_reads_it(tmp_path: Path, how: str) -> None:
    image = tmp_path / "image"
    made(image, 400, *MAKING[how])
    with mounted(image, tmp_path / "plain", "loop,compress=no") as root:
        fill(root)
        fill_more(root)
    for compression in COMPRESSIONS:
        with mounted(image, tmp_path / compression, f"loop,compress-force={compression}") as root:
            fill_compressed(root, compression)
    with mounted(image, tmp_path / "subvolumes") as root:
        with_subvolumes(root)
    with mounted(image, tmp_path / "read", "loop,ro") as root:
        expected = truth(root)
    told = walked(image)
    assert unknown(told) == []
    assert {path: told_facts(file) for path, file in files_of(told).items()} == expected
    assert {b"/sub/nested", b"/before/nested", b"/snapshot of all/zstd/lines"} <= expected.keys()
    assert expected[b"/disk"][-1] == (259, 70_000)


def test_what_only_the_log_has_is_unknown(tmp_path: Path) -> None:
    image = tmp_path / "image"
    made(image, 200)
    copy = tmp_path / "as after a loss of power"
    with mounted(image, tmp_path / "mnt", "loop,commit=300") as root:
        (root / "first").write_text("first")
        run("sync", "-f", root)
        with (root / "second").open("w") as file:
            file.write("second")
            file.flush()
            os.fsync(file.fileno())
        copy.write_bytes(at_one_moment(image))
    run("fallocate", "--dig-holes", copy)
    told = walked(copy)
    assert files_of(told).keys() == {b"/first"}
    assert ["its log" in problem or "what its log has" in problem for problem in unknown(told)] == [True]


def test_debians_sample_has_the_files_that_were_copied_to_it(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(lzma.decompress(SAMPLE.read_bytes()))
    told = walked(image)
    assert unknown(told) == []
    found = {path: file.blake3 for path, file in files_of(told).items() if file.kind == "file"}
    kept = [one for one in ORIGINALS.rglob("*") if one.is_file() and not one.parent.name.endswith("2")]
    names = {os.fsencode(f"/{one.relative_to(ORIGINALS)}"): one for one in kept}
    assert found.keys() == names.keys()
    assert len(found) > 15
    for path, one in names.items():
        if one.suffix != ".png":  # Debian's build takes the time out of these
            assert found[path] == blake3(one.read_bytes()).hexdigest(), path
