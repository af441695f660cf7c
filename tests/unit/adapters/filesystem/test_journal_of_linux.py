"""Journals as the kernel and debugfs write them, whatever it is."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from fakes.journals import (
    FREE,
    MAGIC,
    NO_SUMS,
    SUMS_2,
    SUMS_3,
    UNKNOWN,
    Made,
    flipped,
    played,
    without_recovery,
)
from fakes.mounts import mounted
from fakes.volumes import at_one_moment, blank, files_of, problems_of, run, walked
from korora.model.files import FileRecord

# -- what the kernel wrote ---------------------------------------------------------------------------------


def with_files_flushed(image: Path, at: Path, options: str = "loop") -> tuple[bytes, dict[bytes, bytes]]:
    """The disk while it is mounted, and what must be in it."""
    content = random.Random(3)
    there: dict[bytes, bytes] = {}
    with mounted(image, at, options) as root:
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


@pytest.mark.parametrize("options", ["journal_checksum", "data=writeback,journal_async_commit"])
def test_of_checksums_of_the_first_kind_the_kernel_makes_those_that_fit(tmp_path: Path, options: str) -> None:
    image = blank(tmp_path / "disk.raw", 32)
    run("mkfs.ext4", "-q", "-O", "^metadata_csum", image)
    content, there = with_files_flushed(image, tmp_path / "at", f"loop,{options}")
    begin = int(run("debugfs", "-R", "bmap <8> 0", image).split()[0]) * int(block_bytes_of(image))
    assert struct.unpack_from(">I", content, begin + 0x24)[0] & 1
    told = walked(content)
    if "async" in options:
        assert [UNKNOWN in one.problem for one in problems_of(told)] == [True]
    else:
        assert problems_of(told) == []
        assert there.keys() <= files_of(told).keys()


def block_bytes_of(image: Path) -> str:
    return run("dumpe2fs", "-h", image).partition("Block size:")[2].split()[0]


# -- anything, against e2fsck ------------------------------------------------------------------------------


def anything(made: Made, chance: random.Random, sums: str) -> bytes:
    """Transactions that write, revoke and write again the same few blocks."""
    commands: list[str] = []
    for number in range(chance.randint(1, 8)):
        some = chance.sample(range(FREE, FREE + 8), chance.randint(1, 8))
        if chance.random() < 0.3:
            commands.append(f"jw -r {','.join(map(str, some))}")
            continue
        begin = chance.choice([b"", MAGIC])
        last = ("-c",) if chance.random() < 0.15 else ()
        blocks = {one: begin + chance.randbytes(1024 - len(begin)) for one in some}
        commands += made.written(f"{number}-", blocks, *last)
        if last:
            break
    return made.logged(*commands, sums=sums)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sums", [NO_SUMS, SUMS_2, SUMS_3])
@pytest.mark.parametrize("kind", ["ext3", "ext4"])
def test_whatever_was_logged_is_as_e2fsck_has_it_or_both_refuse_it(
    tmp_path: Path, kind: str, sums: str, seed: int
) -> None:
    """With a checksum of the first kind debugfs writes a wrong one for what only revokes."""
    chance = random.Random(seed)
    made = Made(tmp_path, kind=kind)
    content = anything(made, chance, sums)
    begin = made.journal_at * 1024
    expected, is_refused = made.checked(content)
    if is_refused:
        with pytest.raises(ValueError, match="damaged"):
            played(content)
    else:
        assert made.differences(expected, now_or_before(content)) == []
    for _ in range(8):
        damaged = flipped(content, begin + 1024 * chance.randint(1, 20) + chance.randrange(64), 1 << seed)
        try:
            now = now_or_before(damaged)
        except ValueError:
            continue  # e2fsck takes some for the journal's end
        expected, is_refused = made.checked(damaged)
        assert not is_refused
        assert made.differences(expected, now) == []


def now_or_before(content: bytes) -> bytes:
    disk = played(content)
    return content if disk is None else disk.read(0, disk.size)
