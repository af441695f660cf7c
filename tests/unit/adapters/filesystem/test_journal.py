"""What ext3 and ext4 have in their journal alone, against e2fsck."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from blake3 import blake3

from fakes.journals import (
    COMMIT,
    DESCRIPTOR,
    FREE,
    HAS_JOURNAL,
    ITSELF,
    JOURNAL_INODE,
    MAGIC,
    MEBIBYTES,
    NEW,
    NO_SUMS,
    OLD,
    SUMS_2,
    SUMS_3,
    SUPERBLOCK,
    UNKNOWN,
    Made,
    debugfs,
    filled,
    flipped,
    overlaid,
    played,
    with_words,
    without_recovery,
)
from fakes.volumes import files_of, problems_of, walked
from korora.adapters.filesystem.sandboxed import SandboxedFiles
from korora.model.files import Told
from korora.model.image import Format, ImageFiles

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
    assert [UNKNOWN in one.problem for one in problems_of(before)] == [True]
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


@pytest.mark.parametrize("kind", ["ext3", "ext4"])
def test_a_journal_that_has_something_though_its_file_system_says_no_is_a_problem(
    tmp_path: Path, kind: str
) -> None:
    """A mount would leave it out, e2fsck would play it."""
    made = Made(tmp_path, kind=kind)
    assert is_one_problem(without_recovery(made.with_a_new_file()))


@pytest.mark.parametrize("kind", ["ext3", "ext4"])
def test_a_file_system_without_a_journal_that_wants_it_played_is_a_problem(tmp_path: Path, kind: str) -> None:
    made = Made(tmp_path, kind=kind)
    content = made.with_a_new_file()
    (features,) = struct.unpack_from("<I", content, HAS_JOURNAL[0])
    assert is_one_problem(with_words(content, HAS_JOURNAL[0], features & ~HAS_JOURNAL[1]))


def test_a_journal_that_needs_no_playing_may_lie_anywhere(tmp_path: Path) -> None:
    made = Made(tmp_path)
    assert problems_of(walked(with_words(made.image.read_bytes(), JOURNAL_INODE, 0))) == []


def test_a_journal_with_a_hole_is_a_problem(tmp_path: Path) -> None:
    made = Made(tmp_path, kind="ext3")
    content = made.with_a_new_file()
    debugfs(made.image, "set_inode_field <8> block[7] 0")
    assert content != made.image.read_bytes()
    with pytest.raises(ValueError, match="holes"):
        played(made.image.read_bytes())
    assert is_one_problem(made.image.read_bytes())


@pytest.mark.parametrize("needs_recovery", [True, False])
def test_a_journal_larger_than_can_be_is_a_problem(tmp_path: Path, needs_recovery: bool) -> None:
    made = Made(tmp_path, kind="ext3")
    if needs_recovery:
        made.with_a_new_file()
    debugfs(made.image, f"set_inode_field <8> size {(MEBIBYTES << 20) + 1}")
    with pytest.raises(ValueError, match="larger than can be"):
        played(made.image.read_bytes())
    assert is_one_problem(made.image.read_bytes())


def test_a_journal_that_would_write_over_itself_is_a_problem(tmp_path: Path) -> None:
    made = Made(tmp_path)
    within = made.journal_at + 500
    content = made.logged(*made.written("a", {within: filled(b"1")}), sums=NO_SUMS)
    with pytest.raises(ValueError, match="over itself"):
        played(content)
    assert is_one_problem(content)


def test_a_journal_that_makes_another_file_system_of_it_is_a_problem(tmp_path: Path) -> None:
    made = Made(tmp_path)
    content = made.logged(*made.written("a", {1: bytes(1024)}))
    assert files_of(walked(content)) == {}
    assert problems_of(walked(content))


def test_what_went_wrong_before_does_not_keep_a_journal_from_being_played(tmp_path: Path) -> None:
    made = Made(tmp_path)
    content = made.with_a_new_file(NO_SUMS)
    is_as_changed(walked(with_words(content, made.journal_at * 1024 + 0x20, 0xFFFFFFFB, ">I")))
