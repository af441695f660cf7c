"""No bitmap is believed that missed a write, whatever crashes, moves and backups come in whatever order."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.tracked_world import CHUNK, Decide, World
from korora.agents.dataorg.bitmaps import (
    Because,
    Bitmap,
    CompareHashes,
    Decision,
    Disk,
    Kept,
    SendRanges,
    Tracking,
    chunks,
    decided,
)
from korora.model.identity import Digest

ROOT, OTHER = Digest("blake3:" + "1" * 64), Digest("blake3:" + "2" * 64)
KEPT = Kept(ROOT, 8 * CHUNK)
TRACKING = Tracking("a", ROOT, 8 * CHUNK, 3, "run-1", persistent=True)
BITMAP = Bitmap(TRACKING.bitmap, 65536, recording=True, persistent=True)
DISK = Disk(8 * CHUNK, "run-2", [Bitmap("of-somebody-else", 65536, True, True), BITMAP])


def test_a_bitmap_that_recorded_since_is_believed() -> None:
    assert decided(KEPT, TRACKING, DISK) == SendRanges(TRACKING.bitmap, 65536)


def disk_with(**changed: object) -> Disk:
    return replace(DISK, bitmaps=[replace(BITMAP, **changed)])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("because", "kept", "tracking", "disk"),
    [
        (Because.NOT_KEPT, None, TRACKING, DISK),
        (Because.NEVER_TRACKED, KEPT, None, DISK),
        (Because.OTHER_CONTENT, replace(KEPT, root=OTHER), TRACKING, DISK),
        (Because.OTHER_CONTENT, replace(KEPT, size=9 * CHUNK), TRACKING, DISK),
        (Because.RESIZED, KEPT, TRACKING, replace(DISK, size=9 * CHUNK)),
        (Because.OVERLAID, KEPT, TRACKING, replace(DISK, on_top=False)),
        (Because.ABSENT, KEPT, TRACKING, replace(DISK, bitmaps=[])),
        (Because.ABSENT, KEPT, replace(TRACKING, epoch=4), DISK),
        (Because.ABSENT, KEPT, replace(TRACKING, host="b"), DISK),
        (Because.AMBIGUOUS, KEPT, TRACKING, replace(DISK, bitmaps=[BITMAP, BITMAP])),
        (Because.INCONSISTENT, KEPT, TRACKING, disk_with(inconsistent=True)),
        (Because.PAUSED, KEPT, TRACKING, disk_with(recording=False)),
        (Because.OTHER_RUN, KEPT, TRACKING, disk_with(persistent=False)),
        (Because.OTHER_RUN, KEPT, replace(TRACKING, persistent=False), DISK),
        (Because.APART, KEPT, TRACKING, replace(DISK, apart=True)),
        (Because.COARSE, KEPT, TRACKING, disk_with(granularity=2 * CHUNK)),
        (Because.COARSE, KEPT, TRACKING, disk_with(granularity=0)),
    ],
)
def test_one_doubt_is_enough(
    because: Because, kept: Kept | None, tracking: Tracking | None, disk: Disk
) -> None:
    decision = decided(kept, tracking, disk)
    assert decision == CompareHashes(because)
    assert isinstance(decision, CompareHashes)
    assert decision.kept is (kept is not None)


def test_within_one_run_a_bitmap_need_not_be_persistent() -> None:
    begun = replace(TRACKING, persistent=False)
    disk = replace(disk_with(persistent=False), run="run-1", apart=True)
    assert decided(KEPT, begun, disk) == SendRanges(TRACKING.bitmap, 65536)


def test_a_bitmaps_name_is_of_everything_that_it_is_about() -> None:
    others = [{"host": "b"}, {"root": OTHER}, {"size": 1}, {"epoch": 4}]
    names = {replace(TRACKING, **other).bitmap for other in others}  # type: ignore[arg-type]
    assert len(names | {TRACKING.bitmap}) == 5
    assert replace(TRACKING, run="x").bitmap == TRACKING.bitmap
    assert TRACKING.bitmap == "korora-" + TRACKING.bitmap[7:39]


# -- every order of what can happen ------------------------------------------------------------------------

EVENTS: dict[str, Callable[[World, Decide], object]] = {
    "write 0": lambda world, _: world.write(0),
    "write 1": lambda world, _: world.write(1),
    "stop": lambda world, _: world.stop(),
    "start": lambda world, _: world.start(),
    "kill": lambda world, _: world.kill(),
    "to a": lambda world, decide: world.move("a", decide),
    "to b": lambda world, decide: world.move("b", decide),
    "to c": lambda world, decide: world.move("c", decide, carry=True),
    "to a, carried": lambda world, decide: world.move("a", decide, carry=True),
    "to b, not noted": lambda world, decide: world.move("b", decide, note=False),
    "to b, not added": lambda world, decide: world.move("b", decide, add=False),
    "save": lambda world, _: world.save(),
    "restore": lambda world, _: world.restore(),
    "scribble": lambda world, _: world.scribble(),
    "grow": lambda world, _: world.grow(),
    "outsource": lambda world, _: world.outsource(),
    "fold": lambda world, _: world.fold(),
    "notes lost": lambda world, _: world.lose_notes(),
    "copies changed": lambda world, _: world.lose_copy(),
}
FEW = ("write 0", "stop", "start", "kill", "to a", "to c", "save", "restore", "scribble", "outsource")


def worlds() -> list[World]:
    """At b, after a visit at a: images that store bitmaps, raw ones, and those with their content apart."""
    made = []
    for stores, apart in ((True, False), (False, False), (True, True)):
        world = World(stores=stores, apart=apart)
        world.move("b", decided)
        made.append(world)
    return made


def happen(world: World, names: tuple[str, ...], decide: Decide) -> World:
    """AssertionError if a host would have anything else than the VM's disk."""
    world = deepcopy(world)
    for name in names:
        EVENTS[name](world, decide)
    for name in ("start", "to a", "to b", "to c"):
        EVENTS[name](world, decide)
    return world


@pytest.mark.parametrize("number", range(3))
def test_in_every_order_of_crash_visit_and_return_nothing_that_changed_is_left_out(number: int) -> None:
    before = worlds()[number]
    believed = 0
    for names in product(FEW, repeat=4):
        world = happen(before, names, decided)
        believed += sum(isinstance(one, SendRanges) for one in world.decisions)
    assert believed > 100


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2), st.lists(st.sampled_from(sorted(EVENTS)), max_size=25))
def test_in_long_histories_nothing_that_changed_is_left_out(number: int, names: list[str]) -> None:
    happen(worlds()[number], tuple(names), decided)


def test_where_nothing_breaks_a_return_sends_ranges() -> None:
    for number, expected in ((0, SendRanges), (1, CompareHashes), (2, CompareHashes)):
        for names, kind in (
            (("write 0",), SendRanges),
            (("write 0", "stop", "start", "write 1"), expected),
            (("stop", "start", "kill", "start"), CompareHashes),
            (("kill", "start"), CompareHashes),
            (("outsource", "write 0", "fold"), SendRanges),
            (("write 0", "to c", "write 1"), SendRanges),
        ):
            world = worlds()[number]
            for name in names:
                EVENTS[name](world, decided)
            made, decision = world.arrived("a", decided)
            assert made == world.content
            assert isinstance(decision, kind), (number, names, decision)


# -- the model has teeth: each doubt that is not heeded loses a write ---------------------------------------


def trusting(doubt: Because) -> Decide:
    """Decides as `decided`, but for this one doubt, in which it takes whatever bitmap it finds."""

    def decide(kept: Kept | None, tracking: Tracking | None, disk: Disk) -> Decision:
        decision = decided(kept, tracking, disk)
        if not isinstance(decision, CompareHashes) or decision.because is not doubt:
            return decision
        wanted = tracking.bitmap if tracking else ""
        names = [one.name for one in disk.bitmaps if doubt is Because.ABSENT or one.name == wanted]
        return SendRanges(names[0], 65536) if names else decision

    return decide


@pytest.mark.parametrize(
    ("doubt", "number", "events"),
    [
        (Because.INCONSISTENT, 0, "stop, start, write 0, kill, start"),
        (Because.OTHER_CONTENT, 0, "copies changed"),
        (Because.OVERLAID, 0, "outsource, write 0"),
        (Because.APART, 2, "stop, scribble"),
        (Because.ABSENT, 0, "stop, save, start, write 0, to a, to b, stop, restore"),
    ],
)
def test_a_doubt_that_is_not_heeded_loses_a_write(doubt: Because, number: int, events: str) -> None:
    names = tuple(events.split(", "))
    assert loses(worlds()[number], names, trusting(doubt))
    assert not loses(worlds()[number], names, decided)


def loses(world: World, names: tuple[str, ...], decide: Decide) -> bool:
    try:
        happen(world, names, decide)
    except AssertionError:
        return True
    return False


# -- chunks ------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 200_000), st.integers(1, 3 * CHUNK)), max_size=8),
    st.integers(0, 4096),
)
def test_every_dirty_byte_is_in_one_chunk_that_is_sent(gaps: list[tuple[int, int]], more: int) -> None:
    dirty, at = [], 0
    for gap, length in gaps:
        dirty.append((at + gap, length))
        at += gap + length
    size = at + more + 1
    found = list(chunks(dirty, size))
    sent = [chunk for first, count in found for chunk in range(first, first + count)]
    touched = {
        chunk
        for offset, length in dirty
        for chunk in range(offset // CHUNK, (offset + length - 1) // CHUNK + 1)
    }
    assert sent == sorted(touched)
    assert all(one[0] + one[1] < other[0] for one, other in pairwise(found))


@pytest.mark.parametrize(
    "dirty", [[(CHUNK, 1), (0, 1)], [(0, 2), (1, 1)], [(0, 0)], [(-1, 5)], [(3 * CHUNK, 1)], [(0, 4 * CHUNK)]]
)
def test_ranges_that_are_none_of_the_disk_are_refused(dirty: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError):
        list(chunks(dirty, 2 * CHUNK + 5))
