"""What ext3 and ext4 have in their journal alone, against e2fsck and the kernel."""

from __future__ import annotations

import os
import random
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytsk3
from blake3 import blake3

from fakes.volumes import at_one_moment, blank, files_of, mounted, problems_of, run, walked
from korora.adapters.filesystem import journal
from korora.adapters.filesystem.disk import Bytes, ForSleuthKit
from korora.adapters.filesystem.sandboxed import SandboxedFiles
from korora.model.files import FileRecord, Told
from korora.model.image import Format, ImageFiles

MEBIBYTES = 16
MAGIC = bytes.fromhex("c03b3998")
DESCRIPTOR, COMMIT, SUPERBLOCK = 1, 2, 4
NEEDS_RECOVERY, JOURNAL_INODE = (1024 + 0x60, 0x4), 1024 + 0xE0
NEW, OLD = random.Random(1).randbytes(70_001), b"old\n" * 900
NO_SUMS, SUMS_2, SUMS_3 = "", "-c -v 2", "-c -v 3"
UNKNOWN = "what is in its journal alone is not known"
ITSELF = "volume 1: /"


class Memory:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size = len(content)

    def read(self, offset: int, length: int) -> bytes:
        return self._content[offset : offset + length]


def debugfs(image: Path, *commands: str) -> None:
    text = "".join(f"{one}\n" for one in commands)
    subprocess.run(
        ["debugfs", "-w", "-f", "-", image], input=text.encode(), check=True, capture_output=True, timeout=60
    )


def blocks_of(content: bytes, block_bytes: int) -> Iterator[bytes]:
    return (content[at : at + block_bytes] for at in range(0, len(content), block_bytes))


class Made:
    """A disk, as it was; its copy, that was changed; and what writes the changes into its journal alone."""

    def __init__(self, folder: Path, *options: str, kind: str = "ext4", block_bytes: int = 1024) -> None:
        self.folder = folder
        self.block_bytes = block_bytes
        (folder / "root" / "folder").mkdir(parents=True)
        (folder / "root" / "folder" / "old").write_bytes(OLD)
        (folder / "new").write_bytes(NEW)
        self.image = blank(folder / "disk.raw", MEBIBYTES)
        options = ("-q", "-t", kind, "-b", str(block_bytes), *options)
        run("mkfs.ext4", *options, "-d", folder / "root", self.image)
        self.journal_at = self._journal_at()

    def _journal_at(self) -> int:
        return int(run("debugfs", "-R", "bmap <8> 0", self.image).split()[0])

    def changes(self, *commands: str) -> dict[int, bytes]:
        """What these would change."""
        other = self.folder / "changed.raw"
        other.write_bytes(self.image.read_bytes())
        debugfs(other, *commands)
        both = zip(
            blocks_of(self.image.read_bytes(), self.block_bytes),
            blocks_of(other.read_bytes(), self.block_bytes),
            strict=True,
        )
        return {number: now for number, (before, now) in enumerate(both) if before != now}

    def written(self, name: str, blocks: dict[int, bytes], *options: str) -> list[str]:
        """The commands that write these as transactions: a command has room for no more than some."""
        commands, numbers = [], sorted(blocks)
        for at in range(0, len(numbers), 40):
            some, file = numbers[at : at + 40], self.folder / f"{name}{at}"
            file.write_bytes(b"".join(blocks[number] for number in some))
            commands.append(" ".join(("jw", "-b", ",".join(map(str, some)), *options, str(file))))
        return commands

    def logged(self, *commands: str, sums: str = SUMS_3) -> bytes:
        debugfs(self.image, f"jo {sums}", *commands, "jc")
        return self.image.read_bytes()

    def with_a_new_file(self, sums: str = SUMS_3) -> bytes:
        changes = self.changes(f"write {self.folder / 'new'} new", "mkdir more", "rm /folder/old")
        return self.logged(*self.written("piece", changes), sums=sums)

    def mended(self, content: bytes) -> bytes:
        """As e2fsck has it."""
        image = self.folder / "mended.raw"
        image.write_bytes(content)
        done = subprocess.run(
            ["e2fsck", "-fy", "-E", "journal_only", image], capture_output=True, check=False
        )
        assert done.returncode in {0, 1}, done.stderr
        return image.read_bytes()

    def differences(self, one: bytes, other: bytes) -> list[int]:
        """But for where the file system, and its journal, say that there is nothing more to play."""
        itself = {1024 // self.block_bytes, self.journal_at}
        both = zip(blocks_of(one, self.block_bytes), blocks_of(other, self.block_bytes), strict=True)
        return [number for number, (a, b) in enumerate(both) if a != b and number not in itself]

    def place(self, content: bytes, kind: int, number: int = 0) -> int:
        """Where in the image the journal has its nth block of that kind."""
        found = []
        begin = self.journal_at * self.block_bytes
        for at in range(begin, len(content), self.block_bytes):
            if content[at : at + 8] == MAGIC + struct.pack(">I", kind):
                found.append(at)
        return found[number]


def played(content: bytes) -> Bytes | None:
    disk = Memory(content)
    image = ForSleuthKit(disk)
    return journal.played(disk, pytsk3.FS_Info(image))


def overlaid(content: bytes) -> bytes:
    disk = played(content)
    assert disk is not None
    return disk.read(0, disk.size)


def flipped(content: bytes, at: int, bit: int = 1) -> bytes:
    return content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]


def without_recovery(content: bytes) -> bytes:
    at, flag = NEEDS_RECOVERY
    assert content[at] & flag
    return flipped(content, at, flag)


# -- what e2fsck makes of it -------------------------------------------------------------------------------


@pytest.mark.parametrize("block_bytes", [1024, 4096])
@pytest.mark.parametrize("sums", [NO_SUMS, SUMS_2, SUMS_3])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("ext4", ()), ("ext4", ("-O", "^64bit")), ("ext3", ())],
    ids=["ext4", "32bit", "ext3"],
)
def test_the_disk_is_what_e2fsck_makes_of_it(
    tmp_path: Path, kind: str, options: tuple[str, ...], sums: str, block_bytes: int
) -> None:
    made = Made(tmp_path, *options, kind=kind, block_bytes=block_bytes)
    content = made.with_a_new_file(sums)
    now = overlaid(content)
    assert made.differences(content, now)
    assert made.differences(made.mended(content), now) == []


@pytest.mark.parametrize("kind", ["ext3", "ext4"])
def test_a_file_that_is_in_the_journal_alone_is_told(tmp_path: Path, kind: str) -> None:
    made = Made(tmp_path, kind=kind)
    content = made.with_a_new_file()
    is_as_changed(walked(content))
    before = walked(without_recovery(content))
    assert problems_of(before) == []
    assert b"/new" not in files_of(before)
    assert files_of(before)[b"/folder/old"].blake3 == blake3(OLD).hexdigest()


def test_so_it_is_in_the_sandbox(tmp_path: Path) -> None:
    made = Made(tmp_path)
    made.with_a_new_file()
    is_as_changed(list(SandboxedFiles(120.0).walk(ImageFiles(made.image, Format.RAW), ())))


def is_as_changed(told: list[Told]) -> None:
    assert problems_of(told) == []
    assert files_of(told)[b"/new"].blake3 == blake3(NEW).hexdigest()
    assert b"/more" in files_of(told)
    assert b"/folder/old" not in files_of(told)


def test_a_disk_that_was_unmounted_has_nothing_to_play(tmp_path: Path) -> None:
    made = Made(tmp_path)
    assert played(made.image.read_bytes()) is None
    assert problems_of(walked(made.image.read_bytes())) == []


# -- transactions ------------------------------------------------------------------------------------------


def filled(with_what: bytes) -> bytes:
    return (with_what * 1024)[:1024]


FREE = 9000


@pytest.mark.parametrize("sums", [NO_SUMS, SUMS_3])
def test_of_several_transactions_the_later_one_wins(tmp_path: Path, sums: str) -> None:
    made = Made(tmp_path)
    first, second = {FREE: filled(b"1"), FREE + 1: filled(b"1")}, {FREE: filled(b"2")}
    content = made.logged(*made.written("a", first), *made.written("b", second), sums=sums)
    now = overlaid(content)
    assert now[FREE * 1024 : (FREE + 2) * 1024] == filled(b"2") + filled(b"1")
    assert made.differences(made.mended(content), now) == []


@pytest.mark.parametrize("how", ["never written", "lost"])
def test_a_transaction_without_its_end_is_not_laid_over(tmp_path: Path, how: str) -> None:
    made = Made(tmp_path)
    options = ("-c",) if how == "never written" else ()
    content = made.logged(
        *made.written("a", {FREE: filled(b"1")}), *made.written("b", {FREE: filled(b"2")}, *options)
    )
    if how == "lost":
        at = made.place(content, COMMIT, 1)
        content = content[:at] + bytes(1024) + content[at + 1024 :]
    now = overlaid(content)
    assert now[FREE * 1024 : (FREE + 1) * 1024] == filled(b"1")
    assert made.differences(made.mended(content), now) == []
    assert problems_of(walked(content)) == []


def test_a_transaction_that_was_being_written_is_no_damage(tmp_path: Path) -> None:
    """Its data may come after what describes it."""
    made = Made(tmp_path)
    content = made.logged(
        *made.written("a", {FREE: filled(b"1")}), *made.written("b", {FREE: filled(b"2")}, "-c")
    )
    at = made.place(content, DESCRIPTOR, 1) + 1024
    content = content[:at] + bytes(1024) + content[at + 1024 :]
    assert overlaid(content)[FREE * 1024 : (FREE + 1) * 1024] == filled(b"1")
    assert problems_of(walked(content)) == []


@pytest.mark.parametrize("sums", [NO_SUMS, SUMS_3])
@pytest.mark.parametrize("options", [(), ("-O", "^64bit")], ids=["64bit", "32bit"])
def test_what_was_revoked_is_not_laid_over_and_what_came_later_is(
    tmp_path: Path, sums: str, options: tuple[str, ...]
) -> None:
    made = Made(tmp_path, *options)
    both = {FREE: filled(b"1"), FREE + 1: filled(b"1")}
    content = made.logged(
        *made.written("a", both),
        f"jw -r {FREE},{FREE + 1}",
        *made.written("b", {FREE: filled(b"2")}),
        sums=sums,
    )
    now = overlaid(content)
    assert now[FREE * 1024 : (FREE + 2) * 1024] == filled(b"2") + bytes(1024)
    assert made.differences(made.mended(content), now) == []


@pytest.mark.parametrize("sums", [NO_SUMS, SUMS_3])
def test_a_block_that_begins_like_one_of_the_journal_comes_whole(tmp_path: Path, sums: str) -> None:
    made = Made(tmp_path)
    block = MAGIC + random.Random(2).randbytes(1020)
    content = made.logged(*made.written("a", {FREE: filled(b"1"), FREE + 1: block}), sums=sums)
    now = overlaid(content)
    assert now[FREE * 1024 : (FREE + 2) * 1024] == filled(b"1") + block
    assert content.count(block[4:]) == 1
    assert made.differences(made.mended(content), now) == []


# -- damage ------------------------------------------------------------------------------------------------


def is_one_problem(content: bytes) -> bool:
    told = walked(content)
    (problem,) = problems_of(told)
    assert b"/folder/old" in files_of(told), "what is in its place is told all the same"
    return problem.where == ITSELF and UNKNOWN in problem.problem


@pytest.mark.parametrize("sums", [SUMS_2, SUMS_3])
@pytest.mark.parametrize(
    ("kind", "offset"),
    [(DESCRIPTOR, 12), (DESCRIPTOR, 900), (DESCRIPTOR, 1024 + 700), (COMMIT, 52), (SUPERBLOCK, 0x100)],
    ids=["a tag", "after the tags", "a block", "an end", "its superblock"],
)
def test_damage_that_a_checksum_shows_is_a_problem(tmp_path: Path, kind: int, offset: int, sums: str) -> None:
    made = Made(tmp_path)
    content = made.with_a_new_file(sums)
    assert problems_of(walked(content)) == []
    damaged = flipped(content, made.place(content, kind) + offset)
    with pytest.raises(ValueError, match="damaged"):
        played(damaged)
    assert is_one_problem(damaged)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0x00, 0),
        (0x04, 1),
        (0x0C, 4096),
        (0x10, 1 << 20),
        (0x14, 0),
        (0x14, 1 << 20),
        (0x1C, 1 << 20),
        (0x28, 0x20),
        (0x28, 0x4),
    ],
    ids=["magic", "kind", "block", "length", "first", "first far", "start", "fast commits", "asynchronous"],
)
def test_a_journal_that_cannot_be_or_is_not_understood_is_a_problem(
    tmp_path: Path, at: int, value: int
) -> None:
    made = Made(tmp_path)
    content = bytearray(made.with_a_new_file(NO_SUMS))
    struct.pack_into(">I", content, made.journal_at * 1024 + at, value)
    with pytest.raises(ValueError, match=r"^it "):
        played(bytes(content))
    assert is_one_problem(bytes(content))


@pytest.mark.parametrize(
    ("inode", "words"),
    [(0, "on another device"), (1 << 30, None), (2, None)],
    ids=["nowhere", "far", "a folder"],
)
def test_a_journal_that_is_elsewhere_is_a_problem(tmp_path: Path, inode: int, words: str | None) -> None:
    made = Made(tmp_path)
    content = bytearray(made.with_a_new_file())
    struct.pack_into("<I", content, JOURNAL_INODE, inode)
    with pytest.raises((OSError, ValueError), match=words):
        played(bytes(content))
    assert is_one_problem(bytes(content))


def test_a_journal_for_blocks_that_are_not_of_the_disk_is_a_problem(tmp_path: Path) -> None:
    made = Made(tmp_path)
    content = made.logged(*made.written("a", {FREE: filled(b"1")}), sums=NO_SUMS)
    at = made.place(content, DESCRIPTOR) + 12
    assert content[at : at + 4] == struct.pack(">I", FREE)
    content = content[:at] + struct.pack(">I", MEBIBYTES * 1024) + content[at + 4 :]
    with pytest.raises(ValueError, match="not of this disk"):
        played(content)
    assert is_one_problem(content)


# -- what the kernel wrote ---------------------------------------------------------------------------------


def with_files_flushed(image: Path, at: Path) -> tuple[bytes, dict[bytes, bytes]]:
    """The disk while it is mounted, and what must be in it."""
    content = random.Random(3)
    there: dict[bytes, bytes] = {}
    with mounted(image, at) as root:
        for number in range(40):
            folder = root / f"folder{number % 5}"
            folder.mkdir(exist_ok=True)
            path = folder / f"file{number}"
            there[b"/" + os.fsencode(path.relative_to(root))] = data = MAGIC + content.randbytes(number * 300)
            with path.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if number % 7 == 3:
                path.unlink()
                del there[b"/" + os.fsencode(path.relative_to(root))]
        descriptor = os.open(root, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return at_one_moment(image), there


ROUNDS = 10
"""The kernel may write what lies in a journal into its place whenever it likes."""


@pytest.mark.parametrize("made", [("ext4", 1024), ("ext4", 4096), ("ext3", 1024)], ids=["1K", "4K", "ext3"])
@pytest.mark.parametrize("data", ["in place", "in the journal too"])
def test_of_a_mounted_disk_all_that_was_flushed_is_told(
    tmp_path: Path, made: tuple[str, int], data: str
) -> None:
    content, there = next(one for one in flushed(tmp_path, *made, data) if some_is_in_the_journal_alone(*one))
    told = walked(content)
    assert problems_of(told) == []
    found = {path: one.blake3 for path, one in files_of(told).items() if is_in(there, one)}
    assert found == {path: blake3(data).hexdigest() for path, data in there.items()}


def flushed(
    folder: Path, kind: str, block_bytes: int, data: str
) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
    for number in range(ROUNDS):
        image = blank(folder / f"disk{number}.raw", 32)
        run("mkfs.ext4", "-q", "-t", kind, "-b", str(block_bytes), image)
        if data == "in the journal too":
            run("tune2fs", "-o", "journal_data", image)
        yield with_files_flushed(image, folder / f"at{number}")


def some_is_in_the_journal_alone(content: bytes, there: dict[bytes, bytes]) -> bool:
    return not there.keys() <= files_of(walked(without_recovery(content))).keys()


def is_in(there: dict[bytes, bytes], one: FileRecord) -> bool:
    return one.kind == "file" and one.path in there


def test_a_disk_with_fast_commits_is_a_problem_while_it_is_mounted(tmp_path: Path) -> None:
    image = blank(tmp_path / "disk.raw", 32)
    run("mkfs.ext4", "-q", "-O", "fast_commit", image)
    content, _ = with_files_flushed(image, tmp_path / "at")
    assert problems_of(walked(content))
