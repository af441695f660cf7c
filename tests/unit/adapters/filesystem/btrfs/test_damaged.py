"""A btrfs that was damaged, or made to deceive: what is not as its checksums say is never told as read."""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.held_disk import SUPERBLOCK, SUPERBLOCK_BYTES, HeldDisk, blocks_of, told_of
from korora.adapters.filesystem.btrfs.superblock import Addresses
from korora.adapters.filesystem.btrfs.trees import Trees
from korora.adapters.filesystem.contents import Walked
from korora.adapters.filesystem.sandboxed import SandboxedFiles
from korora.model.files import Done, FileRecord, Problem, Volume
from korora.model.image import Format, ImageFiles

MIB = 1 << 20
BLOCK = 16384
HEADER, ITEM, POINTER = 101, 25, 33
TOP_LEVEL, CHECKSUMS = 5, 7
Told = list[Walked]


def made(tmp: Path, *options: str) -> bytes:
    tree = tmp / "tree"
    (tree / "folder" / "deep").mkdir(parents=True)
    chance = random.Random(3)
    (tree / "folder" / "data").write_bytes(chance.randbytes(100_000))
    (tree / "folder" / "deep" / "inline").write_bytes(b"short")
    for number in range(300):
        (tree / f"file {number:03}").write_bytes(chance.randbytes(number * 7))
    with (tmp / "image").open("wb") as file:
        file.truncate(160 * MIB)
    subprocess.run(
        ["mkfs.btrfs", "-q", *options, "--shrink", "--rootdir", str(tree), str(tmp / "image")],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return (tmp / "image").read_bytes()


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Everything on it is there once."""
    return made(tmp_path_factory.mktemp("single"), "-m", "single")


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Metadata is there twice."""
    return made(tmp_path_factory.mktemp("twice"), "-m", "dup")


def unknown(told: Told) -> list[str]:
    return [one.problem for one in told if isinstance(one, Problem | FileRecord) and one.problem]


def test_what_is_whole_is_told_without_problems(single: bytes, twice: bytes) -> None:
    for content in (single, twice):
        told = told_of(HeldDisk(content))
        assert unknown(told) == []
        assert len(told) == 304


@pytest.mark.parametrize("seed", range(6))
def test_one_wrong_bit_in_any_block_that_is_needed_is_seen(single: bytes, seed: int) -> None:
    chance = random.Random(seed)
    blocks = blocks_of(HeldDisk(single))
    assert len(blocks) >= 6
    for block in [*blocks, SUPERBLOCK]:
        disk = HeldDisk(single)
        length = SUPERBLOCK_BYTES if block == SUPERBLOCK else BLOCK
        # The rest of a checksum's field is not looked at by Linux either.
        at = block + chance.choice([chance.randrange(4), chance.randrange(32, length)])
        disk.content[at] ^= 1 << chance.randrange(8)
        assert unknown(told_of(disk)) != [], hex(at)


def test_a_block_that_is_there_twice_is_read_from_the_copy_that_is_whole(twice: bytes) -> None:
    whole = told_of(HeldDisk(twice))
    for block in blocks_of(HeldDisk(twice)):
        disk = HeldDisk(twice)
        disk.content[block + 200] ^= 1
        assert told_of(disk) == whole


def test_one_wrong_bit_of_data_is_told_of_that_file_alone(single: bytes) -> None:
    known = {one.path: one for one in told_of(HeldDisk(single)) if isinstance(one, FileRecord)}
    tree = random.Random(3).randbytes(100_000)  # what the first file was made of
    at = single.index(tree[:64])
    for within in (0, 4095, 4096, 99_999):
        disk = HeldDisk(single)
        disk.content[at + within] ^= 0x10
        told = told_of(disk)
        assert len(unknown(told)) == 1
        found = {one.path: one for one in told if isinstance(one, FileRecord)}
        bad = found.pop(b"/folder/data")
        assert bad.blake3 is None
        assert "checksum of the data" in bad.problem
        assert found.items() <= known.items()


@pytest.mark.parametrize("sixteenths", range(1, 16))
def test_a_truncated_one_is_never_whole(single: bytes, sixteenths: int) -> None:
    needed = single.rstrip(b"\x00")
    told = told_of(HeldDisk(needed[: len(needed) * sixteenths // 16]))
    assert unknown(told) != []


# -- made to deceive: the checksums are right ---------------------------------------------------------------


def edited(content: bytes, tree: int, edit: Callable[[bytearray], None]) -> HeldDisk:
    """The first leaf of a tree that has what is to be changed, changed, with a right checksum."""
    disk = HeldDisk(content)
    for block in blocks_of(disk, tree):
        if disk.content[block + 100] == 0:  # its level
            held = disk.content[block : block + BLOCK]
            try:
                edit(held)
            except LookupError:
                continue
            disk.content[block : block + BLOCK] = held
            disk.seal(block, BLOCK)
            return disk
    raise AssertionError("no leaf")


def of_items(leaf: bytearray, kind: int) -> list[tuple[int, int]]:
    """Where the items of a kind begin, and how long they are."""
    count = int.from_bytes(leaf[96:100], "little")
    found = []
    for number in range(count):
        _, one, _, offset, size = struct.unpack_from("<QBQII", leaf, HEADER + number * ITEM)
        if one == kind:
            found.append((HEADER + offset, size))
    if not found:
        raise LookupError
    return found


def with_name(name: bytes) -> Callable[[bytearray], None]:
    def edit(leaf: bytearray) -> None:
        at, _ = of_items(leaf, 96)[0]
        leaf[at + 30 : at + 30 + len(name)] = name
        leaf[at + 27 : at + 29] = len(name).to_bytes(2, "little")

    return edit


@pytest.mark.parametrize("name", [b".", b"..", b"", b"a/b", b"a\x00b"])
def test_a_name_that_cannot_be_is_a_problem(single: bytes, name: bytes) -> None:
    told = told_of(edited(single, TOP_LEVEL, with_name(name)))
    assert [problem for problem in unknown(told) if "a name that cannot be" in problem]
    assert not any(isinstance(one, FileRecord) and one.path.endswith(b"/" + name) for one in told)


def leading(content: bytes, name: bytes, kinds: tuple[int, ...], inode: int) -> HeldDisk:
    """A name that leads elsewhere: for who asks for it (84), in the list of its folder (96), or in both."""
    disk, done = HeldDisk(content), set()
    for block in blocks_of(disk, TOP_LEVEL):
        for number in range(
            0
            if disk.content[block + 100]
            else int.from_bytes(disk.content[block + 96 : block + 100], "little")
        ):
            _, kind, _, offset, _ = struct.unpack_from("<QBQII", disk.content, block + HEADER + number * ITEM)
            at = block + HEADER + offset
            if kind in kinds and disk.content[at + 30 : at + 30 + len(name)] == name:
                disk.content[at : at + 8] = inode.to_bytes(8, "little")
                disk.seal(block, BLOCK)
                done.add(kind)
    assert done == set(kinds)
    return disk


def test_a_folder_that_leads_into_itself_is_a_problem_and_ends(single: bytes) -> None:
    told = told_of(leading(single, b"deep", (84, 96), 256))
    assert ["leads back into itself" in problem for problem in unknown(told)] == [True]


@pytest.mark.parametrize("kind", [84, 96])
def test_a_name_that_is_listed_with_another_file_than_who_asks_gets_is_a_problem(
    single: bytes, kind: int
) -> None:
    told = told_of(leading(single, b"file 007", (kind,), 256 + 2))
    assert ["leads elsewhere" in problem for problem in unknown(told)] == [True]


def test_a_name_that_is_not_listed_and_can_be_opened_is_a_problem(single: bytes) -> None:
    def edit(leaf: bytearray) -> None:
        """The last name of the list becomes an item of a kind that nobody asks for."""
        for number in reversed(range(int.from_bytes(leaf[96:100], "little"))):
            at = HEADER + number * ITEM
            following = leaf[at + ITEM + 8] if number + 1 < int.from_bytes(leaf[96:100], "little") else 96
            if leaf[at + 8] == 96 and following != 96:
                leaf[at + 8] = 97
                return
        raise LookupError

    told = told_of(edited(single, TOP_LEVEL, edit))
    assert ["does not list all" in problem for problem in unknown(told)] == [True]


def redirected(content: bytes, change: Callable[[HeldDisk, int, int], None]) -> HeldDisk:
    """The last way down from the first block of the top level, changed: (disk, block, where it stands)."""
    disk = HeldDisk(content)
    block = next(one for one in blocks_of(disk, TOP_LEVEL) if disk.content[one + 100] == 1)
    count = int.from_bytes(disk.content[block + 96 : block + 100], "little")
    assert count > 2
    change(disk, block, block + HEADER + (count - 1) * POINTER)
    disk.seal(block, BLOCK)
    return disk


def test_a_tree_block_that_leads_to_itself_is_refused(single: bytes) -> None:
    def change(disk: HeldDisk, block: int, last: int) -> None:
        disk.content[last + 17 : last + 25] = disk.content[block + 48 : block + 56]

    assert any("belongs there" in problem for problem in unknown(told_of(redirected(single, change))))


def test_a_block_that_two_ways_lead_to_is_refused(single: bytes) -> None:
    """Else a few blocks could make a tree that nobody comes to the end of."""

    def change(disk: HeldDisk, _: int, last: int) -> None:
        disk.content[last + 17 : last + 33] = disk.content[last - POINTER + 17 : last - POINTER + 33]

    assert any("belongs there" in problem for problem in unknown(told_of(redirected(single, change))))


def test_a_block_whose_keys_run_into_the_next_one_is_refused(single: bytes) -> None:
    def edit(leaf: bytearray) -> None:
        of_items(leaf, 96)
        at = HEADER + (int.from_bytes(leaf[96:100], "little") - 1) * ITEM
        leaf[at : at + 8] = b"\xff" * 8

    assert any("belongs there" in problem for problem in unknown(told_of(edited(single, TOP_LEVEL, edit))))


def test_an_item_outside_of_its_block_is_refused(single: bytes) -> None:
    def edit(leaf: bytearray) -> None:
        of_items(leaf, 96)
        leaf[HEADER + 17 : HEADER + 25] = struct.pack("<II", BLOCK - 120, 4096)

    assert any("lies outside" in problem for problem in unknown(told_of(edited(single, TOP_LEVEL, edit))))


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (16, b"\x09", "compression"),
        (17, b"\x01", "encoded"),
        (18, b"\x01\x00", "encoded"),
        (20, b"\x07", "of a kind that is not known"),
        (21, struct.pack("<Q", 4097), "not made of sectors"),
        (21, struct.pack("<Q", 1 << 50), "leads nowhere"),
        (37, struct.pack("<Q", 1 << 40), "larger than what is stored"),
        (45, struct.pack("<Q", 0), "overlap"),
        (45, struct.pack("<Q", 1 << 40), "larger than what is stored"),
    ],
)
def test_an_extent_that_cannot_be_is_a_problem_of_its_file_alone(
    single: bytes, at: int, value: bytes, why: str
) -> None:
    def edit(leaf: bytearray) -> None:
        start = next(start for start, size in of_items(leaf, 108) if size == 53)  # one that is on the disk
        leaf[start + at : start + at + len(value)] = value

    def edited_or_next(leaf: bytearray) -> None:
        try:
            edit(leaf)
        except StopIteration:
            raise LookupError from None

    told = told_of(edited(single, TOP_LEVEL, edited_or_next))
    assert [why in problem for problem in unknown(told)] == [True]
    assert len(told) == 304


def test_extents_that_overlap_are_a_problem(single: bytes) -> None:
    def edit(leaf: bytearray) -> None:
        """The item before an extent, which says whose the name is, becomes the same extent."""
        for number in range(1, int.from_bytes(leaf[96:100], "little")):
            at = HEADER + number * ITEM
            inode, kind, _, offset, size = struct.unpack_from("<QBQII", leaf, at)
            if (kind, size) == (108, 53):
                leaf[at - ITEM : at] = leaf[at : at + ITEM]
                struct.pack_into("<QBQII", leaf, at, inode, kind, 4096, offset, size)
                return
        raise LookupError

    told = told_of(edited(single, TOP_LEVEL, edit))
    assert ["overlap" in problem for problem in unknown(told)] == [True]


def test_data_without_a_checksum_is_unknown(single: bytes) -> None:
    def edit(leaf: bytearray) -> None:
        leaf[96:100] = bytes(4)  # no items

    told = told_of(edited(single, CHECKSUMS, edit))
    assert any("has no checksum" in problem for problem in unknown(told))


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (136, struct.pack("<Q", 2), "2 devices"),
        (188, struct.pack("<Q", 1 << 40), "features that are not known"),
        (148, struct.pack("<I", 1 << 30), "impossible sizes"),
        (196, struct.pack("<H", 9), "kind of checksum"),
        (160, struct.pack("<I", 50), "break off"),
        (198, b"\x05", "belongs there"),
        (80, struct.pack("<Q", 1 << 60), "leads nowhere"),
    ],
)
def test_a_superblock_that_promises_what_is_not_read_is_refused(
    single: bytes, at: int, value: bytes, why: str
) -> None:
    disk = HeldDisk(single)
    disk.content[SUPERBLOCK + at : SUPERBLOCK + at + len(value)] = value
    disk.seal(SUPERBLOCK, SUPERBLOCK_BYTES)
    told = told_of(disk)
    assert len(told) == 1
    assert any(why in problem for problem in unknown(told))


def test_a_chunk_over_several_devices_is_refused() -> None:
    raid0 = struct.pack("<QQQQIIIHH", MIB, 2, 65536, 1 | 8, 4096, 4096, 4096, 2, 1) + bytes(64)
    with pytest.raises(OSError, match="several devices"):
        Addresses(1).add(0, raid0)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_stands_under_a_right_checksum_ends_in_records_or_problems(
    single: bytes, data: st.DataObject
) -> None:
    disk = HeldDisk(single)
    for block in data.draw(st.lists(st.sampled_from(blocks_of(disk)), min_size=1, max_size=3)):
        places = st.one_of(st.integers(48, 600), st.integers(600, BLOCK - 8))
        at = block + data.draw(places)
        value = data.draw(st.binary(min_size=1, max_size=8))
        disk.content[at : at + len(value)] = value
        disk.seal(block, BLOCK)
    for one in told_of(disk):
        assert isinstance(one, FileRecord | Problem)
        if isinstance(one, FileRecord) and one.kind == "file":
            assert (one.blake3 is None) == bool(one.problem)


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_image_never_takes_the_one_who_asks_with_it(
    tmp_path: Path, single: bytes, seed: int
) -> None:
    chance = random.Random(seed)
    content = bytearray(single)
    for block in blocks_of(HeldDisk(single)):
        content[block + chance.randrange(BLOCK)] = chance.randrange(256)
    (tmp_path / "bad").write_bytes(content)
    told = list(SandboxedFiles(120.0).walk(ImageFiles(tmp_path / "bad", Format.RAW)))
    assert isinstance(told[-1], Done)
    assert any(isinstance(one, Problem) for one in told)
    assert [one.filesystem for one in told if isinstance(one, Volume)] == ["btrfs"]


def test_trees_are_found_again_by_their_number(single: bytes) -> None:
    trees = Trees(HeldDisk(single))
    assert trees.tree(TOP_LEVEL)[1] == 256
    with pytest.raises(OSError, match="there is no tree 99"):
        trees.tree(99)
