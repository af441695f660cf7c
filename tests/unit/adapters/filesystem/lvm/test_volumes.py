"""Logical volumes are put together as LVM itself says that they lie, or are told as what nobody reads."""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.physical_volumes import EXTENT, FIRST, described, physical, striped, volume
from korora.adapters.filesystem.lvm.volumes import Logical, is_one, volumes
from korora.adapters.filesystem.sandboxed import SandboxedFiles
from korora.model.files import FileRecord, Located, Problem, Told, Volume
from korora.model.image import Format, ImageFiles

MIB: Final = 1 << 20
EXTENTS: Final = 64


class Held:
    """Bytes in memory."""

    def __init__(self, content: bytes) -> None:
        self.content, self.size = content, len(content)

    def read(self, offset: int, length: int) -> bytes:
        return self.content[offset : offset + length]


def extents(seed: int) -> bytes:
    return random.Random(seed).randbytes(EXTENTS * EXTENT)


def disk(logical: str, **more: bool) -> tuple[bytes, bytes, list[tuple[int, Held]]]:
    """Two physical volumes with this description in both, and what is in their extents."""
    one, two = extents(1), extents(2)
    text = described(logical, "a" * 32, "b" * 32)
    first = physical(text, b"a" * 32, one, **more)
    second = physical(text, b"b" * 32, two, **more)
    return one, two, [(0, Held(first)), (len(first), Held(second))]


def found(parts: list[tuple[int, Held]]) -> tuple[list[Logical], list[str]]:
    told = list(volumes(parts, 100))
    return (
        [one for one in told if isinstance(one, Logical)],
        [one.problem for one in told if isinstance(one, Problem)],
    )


def at(content: bytes, *numbers: int) -> bytes:
    return b"".join(content[number * EXTENT : (number + 1) * EXTENT] for number in numbers)


@pytest.mark.parametrize("wraps", [False, True])
def test_segments_follow_one_another_wherever_they_lie(wraps: bool) -> None:
    logical = volume("root", striped(0, 2, ("pv0", 9)), striped(2, 1, ("pv1", 3)), striped(3, 2, ("pv0", 1)))
    one, two, parts = disk(logical, wraps=wraps)
    [root], problems = found(parts)
    assert problems == []
    assert root.read(0, root.size) == at(one, 9, 10) + at(two, 3) + at(one, 1, 2)
    second = parts[1][0]
    assert root.lies() == [
        (0, FIRST + 9 * EXTENT, 2 * EXTENT),
        (2 * EXTENT, second + FIRST + 3 * EXTENT, EXTENT),
        (3 * EXTENT, FIRST + EXTENT, 2 * EXTENT),
    ]


def test_stripes_take_turns() -> None:
    stripe = 4096
    one, two, parts = disk(volume("root", striped(0, 4, ("pv1", 5), ("pv0", 7), stripe=stripe)))
    [root], problems = found(parts)
    assert problems == []
    left, right = at(two, 5, 6), at(one, 7, 8)
    turns = [part[begin : begin + stripe] for begin in range(0, len(left), stripe) for part in (left, right)]
    assert root.read(0, root.size) == b"".join(turns)


@given(st.integers(0, 9 * EXTENT), st.integers(0, 3 * EXTENT), st.sampled_from([512, 4096, EXTENT]))
@settings(deadline=None, max_examples=60)
def test_any_part_is_the_same_part_of_the_whole(offset: int, length: int, stripe: int) -> None:
    segments = [striped(0, 6, ("pv0", 2), ("pv1", 3), stripe=stripe), striped(6, 2, ("pv0", 40))]
    parts = disk(volume("root", *segments))[2]
    [root], _ = found(parts)
    whole = root.read(0, root.size)
    assert root.read(offset, length) == whole[offset : offset + length]
    image = b"".join(held.content for _, held in parts)
    assert b"".join(image[place : place + size] for _, place, size in root.lies()) == whole


@pytest.mark.parametrize(
    ("segment", "words"),
    [
        (striped(0, 2, ("pv2", 0)), "in another logical volume"),
        (striped(0, 2, ("pv0", EXTENTS - 1)), "beyond the end"),
        (striped(0, 3, ("pv0", 0), ("pv1", 0), stripe=4096), "not of one length"),
        (striped(0, 2, ("pv0", 0), ("pv1", 0), stripe=0), "do not fit"),
        (striped(0, 2, ("pv0", 0), ("pv1", 0), stripe=5 * 512), "do not fit"),
        (striped(1, 2, ("pv0", 0)), "follow one another"),
        (striped(0, 0, ("pv0", 0)), "follow one another"),
        (striped(0, 2), "not described"),
        (striped(0, 2, ("pv0", 0), kind="raid1"), "of type raid1"),
        (striped(0, 2, ("pv0", 0), kind="thin"), "of type thin"),
        ("", "no word"),
    ],
)
def test_what_cannot_be_put_together_is_a_problem_and_its_neighbour_is_read(segment: str, words: str) -> None:
    one, _, parts = disk(volume("bad", segment) + volume("good", striped(0, 1, ("pv0", 5))))
    [good], [problem] = found(parts)
    assert words in problem
    assert good.read(0, good.size) == at(one, 5)


def test_what_only_others_use_is_not_told_and_what_a_snapshot_keeps_is_a_problem() -> None:
    hidden = volume("root_rimage_0", striped(0, 1, ("pv0", 1)), status='"READ"')
    shot = volume("snapshot0", 'type = "snapshot" origin = "root" cow_store = "kept"', status='"READ"')
    kept = volume("kept", striped(0, 1, ("pv0", 2)))
    named, problems = found(disk(hidden + shot + kept + volume("root", striped(0, 1, ("pv0", 3))))[2])
    assert (len(named), len(problems)) == (1, 1)
    assert "snapshot" in problems[0]


def test_a_volume_that_reaches_to_another_disk_is_a_problem_and_the_others_are_read() -> None:
    logical = volume("both", striped(0, 1, ("pv0", 0)), striped(1, 1, ("pv1", 0)))
    parts = disk(logical + volume("here", striped(0, 1, ("pv0", 5))))[2]
    named, problems = found(parts[:1])
    assert [one.size for one in named] == [EXTENT]
    assert problems == ["it reaches to another disk"]


def test_the_newest_description_holds() -> None:
    older = described(volume("root", striped(0, 1, ("pv0", 0))), "a" * 32, "b" * 32, number=3)
    newer = described(volume("root", striped(0, 2, ("pv0", 7))), "a" * 32, "b" * 32, number=4)
    one = extents(1)
    parts = [
        (0, Held(physical(older, b"a" * 32, one))),
        (1 << 30, Held(physical(newer, b"b" * 32, extents(2)))),
    ]
    for order in (parts, parts[::-1]):
        [root], problems = found(order)
        assert (problems, root.read(0, root.size)) == ([], at(one, 7, 8))


def test_a_physical_volume_that_no_group_has_or_that_is_there_twice_is_a_problem() -> None:
    parts = disk(volume("root", striped(0, 1, ("pv0", 0))))[2]
    alone = Held(physical(described("", "c" * 32), b"d" * 32, extents(3)))
    assert found([(0, alone)]) == ([], ["it is of no group that is described on this disk"])
    assert found([parts[0], (1 << 30, parts[0][1])])[1] == ["another physical volume of this disk has its id"]


@given(st.lists(st.tuples(st.integers(512, 8191), st.integers(0, 255)), min_size=1, max_size=4))
@settings(deadline=None, max_examples=200)
def test_a_changed_byte_of_what_lvm_wrote_is_seen_or_changes_nothing(changes: list[tuple[int, int]]) -> None:
    one, _, parts = disk(volume("root", striped(0, 2, ("pv0", 9))))
    content = bytearray(parts[0][1].content)
    for place, value in changes:
        content[place] = value
    changed = Held(bytes(content))
    if not is_one(changed):
        return
    named, problems = found([(0, changed)])
    assert problems or [root.read(0, root.size) for root in named] == [at(one, 9, 10)]


# -- what LVM itself made -----------------------------------------------------------------------------------


def run(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True, timeout=120)
    return done.stdout


class Segment(msgspec.Struct):
    lv_name: str
    seg_start_pe: str
    seg_size_pe: str
    stripes: str
    stripe_size: str
    seg_pe_ranges: str


PARTS: Final = [(1, 64), (65, 62)]
"""Partitions: (where they begin, how long they are) in MiB."""


def made(
    folder: Path, creates: Callable[[str, str], list[list[str]]]
) -> tuple[Path, list[Segment], list[str]]:
    """A disk with two partitions on which LVM made a group and what is asked for, and what LVM says of it."""
    image = folder / "lvm.img"
    with image.open("wb") as file:
        file.truncate(129 * MIB)
    table = "label: gpt\n" + "".join(
        f"start={begin * 2048},size={size * 2048},type=lvm\n" for begin, size in PARTS
    )
    subprocess.run(["sfdisk", "-q", image], input=table.encode(), check=True, capture_output=True, timeout=60)
    devices: list[str] = []
    try:
        for begin, size in PARTS:
            command = [
                "losetup",
                "-f",
                "--show",
                "-o",
                str(begin * MIB),
                "--sizelimit",
                str(size * MIB),
                str(image),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"no loop device to make a volume group on: {done.stderr.strip()}")
            devices.append(done.stdout.strip())
        accepted = ",".join(f'"a|^{device}$|"' for device in devices)
        only = f'devices{{filter=[{accepted},"r|.*|"] use_devicesfile=0}}'

        def lvm(command: str, *words: str) -> str:
            return run("lvm", command, "--driverloaded", "n", "--config", only, *words)

        lvm("pvcreate", "-ff", "-y", *devices)
        lvm("vgcreate", "-s", "4m", "korora-pieces", *devices)
        for words in creates(*devices):
            lvm("lvcreate", "-an", "-Zn", "-Wn", "-y", *words)
        columns = ",".join(Segment.__struct_fields__)
        said = lvm("lvs", "-a", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", columns)
    finally:
        for device in devices:
            run("losetup", "-d", device)
    answer = msgspec.json.decode(said)
    return image, msgspec.convert(answer["report"][0]["lv"], list[Segment]), devices


def placed(segments: list[Segment], name: str, devices: list[str]) -> list[tuple[int, int]]:
    """(where on the disk, how many bytes) of a volume, in its order, by what LVM says."""
    extent, found = 4 * MIB, []
    for one in sorted(
        (one for one in segments if one.lv_name == name), key=lambda one: int(one.seg_start_pe)
    ):
        areas = []
        for device, first in re.findall(r"(\S+):(\d+)-\d+", one.seg_pe_ranges):
            areas.append((PARTS[devices.index(device)][0] + 1) * MIB + int(first) * extent)
        if len(areas) == 1:
            found.append((areas[0], int(one.seg_size_pe) * extent))
            continue
        stripe = int(one.stripe_size)
        for row in range(int(one.seg_size_pe) * extent // stripe // len(areas)):
            found += [(area + row * stripe, stripe) for area in areas]
    return found


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[bytes, bytes]]:
    """An ext4 of 32 MiB, and what is in it."""
    folder = tmp_path_factory.mktemp("inside")
    chance = random.Random(7)
    files = {f"/{number}".encode(): chance.randbytes(chance.randrange(MIB)) for number in range(30)}
    (folder / "root").mkdir()
    for path, content in files.items():
        (folder / "root" / path[1:].decode()).write_bytes(content)
    with (folder / "ext4").open("wb") as file:
        file.truncate(32 * MIB)
    run("mkfs.ext4", "-q", "-d", folder / "root", folder / "ext4")
    return (folder / "ext4").read_bytes(), files


def linear(one: str, two: str) -> list[list[str]]:
    return [["-n", "root", "-l", "8", "korora-pieces", f"{one}:10-12:3-4", f"{two}:5-7"]]


def over_both(one: str, two: str) -> list[list[str]]:
    return [["-n", "root", "-l", "8", "-i", "2", "-I", "64k", "korora-pieces", f"{one}:1-9", f"{two}:3-12"]]


def grown(one: str, two: str) -> list[list[str]]:
    return [["-n", "other", "-l", "3", "korora-pieces", f"{one}:0-2"], *over_both(one, two)]


@pytest.mark.parametrize("creates", [linear, over_both, grown])
def test_what_lvm_made_is_read_as_lvm_says_that_it_lies(
    tmp_path: Path,
    inside: tuple[bytes, dict[bytes, bytes]],
    creates: Callable[[str, str], list[list[str]]],
) -> None:
    content, files = inside
    image, segments, devices = made(tmp_path, creates)
    places = placed(segments, "root", devices)
    assert sum(length for _, length in places) == len(content)
    assert len(places) > 1
    offset = 0
    with image.open("r+b") as file:
        for place, length in places:
            file.seek(place)
            file.write(content[offset : offset + length])
            offset += length
    told: list[Told] = list(SandboxedFiles(120.0).walk(ImageFiles(image, Format.RAW), (b"/*",)))
    assert [one for one in told if isinstance(one, Problem)] == []
    assert "ext4" in [one.filesystem for one in told if isinstance(one, Volume)]
    sizes = {one.path: one.size for one in told if isinstance(one, FileRecord) and one.kind == "file"}
    assert sizes == {path: len(content) for path, content in files.items()}
    whole = image.read_bytes()
    located: dict[bytes, bytes] = {}
    for one in SandboxedFiles(120.0).locate(ImageFiles(image, Format.RAW)):
        assert not isinstance(one, Problem)
        if isinstance(one, Located):
            runs = b"".join(whole[at : at + length] for at, length in one.runs)
            located[one.path] = located.get(one.path, b"") + runs
    assert {path: located.get(path, b"")[: len(content)] for path, content in files.items()} == files
