"""Disks with something in their journal (ext3, ext4) alone, by debugfs, and what e2fsck makes of them."""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytsk3

from fakes.volumes import blank, run
from korora.adapters.filesystem import journal
from korora.adapters.filesystem.disk import Bytes, ForSleuthKit

MEBIBYTES = 16
MAGIC = bytes.fromhex("c03b3998")
DESCRIPTOR, COMMIT, SUPERBLOCK = 1, 2, 4
HAS_JOURNAL: tuple[int, int] = (1024 + 0x5C, 0x4)
NEEDS_RECOVERY, JOURNAL_INODE = (1024 + 0x60, 0x4), 1024 + 0xE0
NEW, OLD = random.Random(1).randbytes(70_001), b"old\n" * 900
NO_SUMS, SUMS_2, SUMS_3 = "", "-c -v 2", "-c -v 3"
UNKNOWN = "what is in its journal alone is not known"
ITSELF = "volume 1: /"
FREE = 15000
"""A block that nothing lies in."""


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
        return self.checked(content)[0]

    def checked(self, content: bytes) -> tuple[bytes, bool]:
        """As e2fsck has it, and whether it found something wrong with it."""
        image = self.folder / "mended.raw"
        image.write_bytes(content)
        done = subprocess.run(
            ["e2fsck", "-fy", "-E", "journal_only", image], capture_output=True, check=False
        )
        assert done.returncode in {0, 1}, done.stderr
        return image.read_bytes(), b"corrupt" in done.stdout

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


def with_words(content: bytes, at: int, value: int, form: str = "<I") -> bytes:
    changed = bytearray(content)
    struct.pack_into(form, changed, at, value)
    return bytes(changed)


def filled(with_what: bytes) -> bytes:
    return (with_what * 1024)[:1024]
