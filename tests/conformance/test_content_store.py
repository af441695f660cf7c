"""What every content store must do: the fake in memory, and the one on disk. `again` opens the same storage
anew, as another process does."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.content_store import MemoryStore, Shelves
from korora.adapters.store.store import FolderStore
from korora.errors import UsageError
from korora.model.stored import SHARED, Bounds, Kind, Located, Scope, TenantName, Trouble
from korora.policy.displacing import Standing, learnt_at_most, standing
from korora.ports.content_store import ContentStore
from korora.protocol.content_tree import CHUNK_BYTES
from korora.protocol.dedup.names import UNIT_BYTES, ZEROS, name_of

ONE, TWO = TenantName("one"), TenantName("two")
MINE, THEIRS = Scope(ONE), Scope(TWO)
NOISE = random.Random(5).randbytes(3 * CHUNK_BYTES)
CHUNK, OTHER, THIRD = (NOISE[at : at + CHUNK_BYTES] for at in range(0, len(NOISE), CHUNK_BYTES))
SMALL = CHUNK[:UNIT_BYTES]
ROOM = 64 << 20
PLENTY = Bounds(1 << 30, 1 << 20)


@dataclass
class Ticking:
    """A clock that is moved by hand."""

    time: float = 1_800_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


class World:
    """One storage, and the store that is open on it."""

    def __init__(self, make: Callable[[Bounds, Ticking], ContentStore], folder: Path) -> None:
        self._make = make
        self.clock = Ticking()
        self.folder = folder
        self.store = make(PLENTY, self.clock)

    def again(self, bounds: Bounds = PLENTY) -> ContentStore:
        self.store.close()
        self.store = self._make(bounds, self.clock)
        return self.store

    def image(self, content: bytes, name: str = "disk.raw") -> tuple[Path, list[Located]]:
        """A file, and its units."""
        path = self.folder / name
        path.write_bytes(content)
        return path, parts_of(content)

    def holds(self, *parts: bytes, tenant: TenantName | None = ONE, room: int = ROOM) -> list[bool]:
        """What is held is what was asked for."""
        with self.store.pins(tenant, room) as pins:
            held = pins.pin([name_of(part) for part in parts])
            for part, there in zip(parts, held, strict=True):
                if there:
                    assert pins.content(name_of(part)) == part
            return held


def parts_of(content: bytes, grain: int = UNIT_BYTES) -> list[Located]:
    cut = [(at, content[at : at + grain]) for at in range(0, len(content), grain)]
    return [Located(at, len(part), name_of(part)) for at, part in cut]


@pytest.fixture(params=["folder", "memory"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    shelves = Shelves()

    def make(bounds: Bounds, clock: Ticking) -> ContentStore:
        if request.param == "memory":
            return MemoryStore(shelves, bounds, clock)
        return FolderStore(tmp_path / "store", bounds, clock)

    there = World(make, tmp_path)
    yield there
    there.store.close()


def test_a_new_store_has_nothing(world: World) -> None:
    assert world.holds(CHUNK, SMALL) == [False, False]
    assert world.holds() == []
    assert (world.store.stat(), world.store.origins(MINE), world.store.forget(MINE, 1)) == ([], [], False)
    assert world.store.verify(MINE).sound == world.store.collect(MINE).entries == 0


@pytest.mark.parametrize("anew", [False, True])
def test_a_kept_chunk_is_found_whole_and_by_its_units(world: World, anew: bool) -> None:
    added = world.store.keep(MINE, Path("template"), [CHUNK, memoryview(OTHER)[:5000]])
    assert (added.entries, added.size, added.complete) == (1 + 256 + 1 + 2, CHUNK_BYTES + 5000, True)
    if anew:
        world.again()
    held = world.holds(CHUNK, SMALL, CHUNK[-UNIT_BYTES:], OTHER[:5000], OTHER[4096:5000], OTHER)
    assert held == [True, True, True, True, True, False]
    assert world.store.verify(MINE).sound == added.entries


@pytest.mark.parametrize("anew", [False, True])
def test_a_part_of_a_file_is_found_where_it_lies(world: World, anew: bool) -> None:
    path, parts = world.image(CHUNK + OTHER[:7000])
    added = world.store.refer(MINE, path, [Located(0, CHUNK_BYTES, name_of(CHUNK)), *parts])
    assert (added.entries, added.size, added.complete) == (1 + 256 + 2, 0, True)
    if anew:
        world.again()
    assert world.holds(CHUNK, SMALL, OTHER[4096:7000], OTHER[:UNIT_BYTES]) == [True] * 4
    assert world.holds(THIRD[:UNIT_BYTES]) == [False]
    assert world.store.verify(MINE).sound == 259


def test_a_part_that_changed_is_a_miss_and_is_dropped_and_told(world: World) -> None:
    path, parts = world.image(CHUNK)
    world.store.refer(MINE, path, parts)
    with path.open("r+b") as file:
        file.write(b"guest")
    with world.store.pins(ONE, ROOM) as pins:
        assert pins.pin([name_of(SMALL), name_of(CHUNK[4096:8192])]) == [False, True]
        [found] = pins.found()
        assert (found.scope, found.trouble, str(path) in found.what) == (MINE, Trouble.CHANGED, True)
        assert pins.found() == []
    [stat] = world.store.stat()
    assert (stat.entries, stat.changed, stat.rotted) == (255, 1, 0)
    with path.open("r+b") as file:
        file.write(SMALL)
    assert world.holds(SMALL) == [False]  # it was dropped, though it is there again


def test_what_is_held_stays_whatever_becomes_of_the_file(world: World) -> None:
    path, parts = world.image(CHUNK)
    world.store.refer(MINE, path, parts)
    with world.store.pins(ONE, ROOM) as pins:
        assert pins.pin([name_of(SMALL)]) == [True]
        path.write_bytes(bytes(len(CHUNK)))
        path.unlink()
        [origin] = world.store.origins(MINE)
        world.store.forget(MINE, origin.number)
        assert pins.content(name_of(SMALL)) == SMALL


@pytest.mark.parametrize("become", ["absent", "another", "link", "pipe", "folder"])
def test_a_file_that_is_another_one_now_is_gone_with_all_its_parts(world: World, become: str) -> None:
    path, parts = world.image(CHUNK)
    world.store.refer(MINE, path, parts)
    moved = path.rename(world.folder / "moved")
    match become:
        case "another":
            path.write_bytes(CHUNK)
        case "link":
            path.symlink_to(moved)
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
    assert world.holds(SMALL) == [False]
    assert world.store.origins(MINE) == []
    [stat] = world.store.stat()
    assert (stat.origins, stat.gone) == (0, 1)
    assert world.holds(CHUNK[4096:8192]) == [False]


def test_a_file_that_was_cut_short_has_the_parts_that_are_left(world: World) -> None:
    path, parts = world.image(CHUNK)
    world.store.refer(MINE, path, parts)
    os.truncate(path, 6000)
    assert world.holds(SMALL, CHUNK[4096:8192], CHUNK[-4096:]) == [True, False, False]
    verified = world.store.verify(MINE)
    assert (verified.sound, verified.changed) == (1, 253)
    assert world.store.verify(MINE).changed == 0


def test_a_link_is_followed_once(world: World) -> None:
    path, parts = world.image(CHUNK)
    link = world.folder / "link"
    link.symlink_to(path)
    world.store.refer(MINE, link, parts)
    link.unlink()
    assert world.holds(SMALL) == [True]
    assert [one.path for one in world.store.origins(MINE)] == [path]


@pytest.mark.parametrize("what", ["absent", "pipe", "folder"])
def test_what_is_no_file_cannot_be_referred_to(world: World, what: str) -> None:
    path = world.folder / what
    if what == "pipe":
        os.mkfifo(path)
    if what == "folder":
        path.mkdir()
    with pytest.raises(UsageError) as error:
        world.store.refer(MINE, path, [])
    assert error.value.kind == "no-image"


def test_a_tenant_finds_its_own_and_what_is_shared_and_nothing_else(world: World) -> None:
    world.store.keep(MINE, Path("a"), [CHUNK])
    world.store.keep(THEIRS, Path("a"), [OTHER])
    world.store.keep(SHARED, Path("a"), [THIRD])
    assert world.holds(CHUNK, OTHER, THIRD, tenant=ONE) == [True, False, True]
    assert world.holds(CHUNK, OTHER, THIRD, tenant=TWO) == [False, True, True]
    assert world.holds(CHUNK, OTHER, THIRD, tenant=None) == [False, False, True]
    assert world.holds(CHUNK, OTHER, THIRD, tenant=TenantName("three")) == [False, False, True]
    assert [stat.scope for stat in world.store.stat()] == [SHARED, MINE, THEIRS]


def test_one_tenants_content_displaces_none_of_anothers(world: World) -> None:
    store = world.again(Bounds(CHUNK_BYTES, 1000))
    store.keep(MINE, Path("a"), [CHUNK])
    store.keep(THEIRS, Path("b"), [OTHER])
    store.keep(THEIRS, Path("c"), [THIRD])
    assert world.holds(CHUNK) == [True]
    assert world.holds(OTHER, THIRD, tenant=TWO) == [False, True]


def test_zeros_are_never_stored(world: World) -> None:
    added = world.store.keep(MINE, Path("a"), [bytes(CHUNK_BYTES), bytes(5), bytes(UNIT_BYTES) + SMALL])
    assert (added.entries, added.size) == (2, 2 * UNIT_BYTES)
    with world.store.pins(ONE, ROOM) as pins:
        assert pins.pin([*ZEROS, name_of(SMALL)]) == [False, False, True]


def test_a_chunk_is_no_longer_than_that(world: World) -> None:
    with pytest.raises(ValueError):
        world.store.keep(MINE, Path("a"), [NOISE[: CHUNK_BYTES + 1]])


def test_no_more_is_held_than_there_is_room_for(world: World) -> None:
    world.store.keep(MINE, Path("a"), [CHUNK, OTHER])
    assert world.holds(CHUNK, OTHER, room=CHUNK_BYTES) == [True, False]
    assert world.holds(CHUNK, SMALL, room=UNIT_BYTES) == [False, True]
    with world.store.pins(ONE, CHUNK_BYTES) as pins:
        assert pins.pin([name_of(CHUNK)]) == [True]
        assert pins.pin([name_of(OTHER), name_of(CHUNK)]) == [False, True]
        pins.release([name_of(CHUNK)])
        assert pins.pin([name_of(OTHER)]) == [False]  # it was held twice
        pins.release([name_of(CHUNK), name_of(THIRD)])
        assert pins.pin([name_of(OTHER)]) == [True]
        with pytest.raises(KeyError):
            pins.content(name_of(CHUNK))


def test_beyond_the_bytes_what_was_used_least_recently_goes(world: World) -> None:
    store = world.again(Bounds(2 * CHUNK_BYTES, 10_000))
    for name, chunk in (("a", CHUNK), ("b", OTHER)):
        world.clock.time += 100
        store.keep(MINE, Path(name), [chunk])
    world.clock.time += 100
    assert world.holds(CHUNK) == [True]
    world.clock.time += 100
    assert store.keep(MINE, Path("c"), [THIRD]).complete
    assert world.holds(CHUNK, OTHER, THIRD) == [True, False, True]


def test_beyond_the_entries_what_was_used_least_recently_goes(world: World) -> None:
    store = world.again(Bounds(1 << 30, 600))
    for name, content in (("a", CHUNK), ("b", OTHER), ("c", THIRD)):
        world.clock.time += 100
        path, parts = world.image(content, name)
        assert store.refer(MINE, path, parts).complete
    assert world.holds(CHUNK[:4096], OTHER[:4096], THIRD[:4096]) == [False, True, True]


def test_what_is_larger_than_a_bound_is_kept_as_far_as_it_fits_and_told(world: World) -> None:
    store = world.again(Bounds(2 * CHUNK_BYTES, 600))
    added = store.keep(MINE, Path("a"), [CHUNK, OTHER, THIRD])
    assert (added.complete, added.size) == (False, 2 * CHUNK_BYTES)
    path, parts = world.image(NOISE)
    assert not store.refer(MINE, path, parts).complete
    [stat] = store.stat()
    assert stat.entries <= 600
    assert stat.size <= 2 * CHUNK_BYTES


def test_what_is_added_again_replaces_what_was_there(world: World) -> None:
    path, parts = world.image(CHUNK)
    world.store.refer(MINE, path, parts)
    path.write_bytes(OTHER)
    world.store.refer(MINE, path, parts_of(OTHER))
    world.store.keep(MINE, path, [CHUNK])
    world.store.keep(MINE, path, [THIRD])
    assert world.holds(CHUNK, OTHER[:4096], THIRD) == [False, True, True]
    assert sorted((one.kind, one.entries) for one in world.store.origins(MINE)) == [
        (Kind.KEPT, 257),
        (Kind.REFERENCE, 256),
    ]


def test_what_is_forgotten_is_not_found_and_the_rest_is(world: World) -> None:
    number = world.store.keep(MINE, Path("a"), [CHUNK, OTHER]).origin
    world.store.keep(MINE, Path("b"), [OTHER, THIRD])
    assert world.store.forget(MINE, number)
    assert not world.store.forget(MINE, number)
    assert not world.store.forget(THEIRS, number + 1)
    assert world.holds(CHUNK, OTHER, THIRD) == [False, True, True]


def test_a_part_in_two_files_is_found_in_the_one_that_is_left(world: World) -> None:
    for name in ("a", "b"):
        path, parts = world.image(CHUNK, name)
        world.store.refer(MINE, path, parts)
    (world.folder / "a").unlink()
    assert world.holds(SMALL) == [True]
    (world.folder / "b").write_bytes(OTHER)
    assert world.holds(SMALL) == [False]


def test_origins_tell_what_they_are_last_used_first(world: World) -> None:
    world.store.keep(MINE, Path("golden image"), [CHUNK])
    world.clock.time += 100
    path, parts = world.image(OTHER)
    world.store.refer(MINE, path, parts)
    kept, referred = Path("golden image"), path
    assert [(one.path, one.entries, one.size) for one in world.store.origins(MINE)] == [
        (referred, 256, 0),
        (kept, 257, CHUNK_BYTES),
    ]
    world.clock.time += 100
    assert world.holds(CHUNK) == [True]
    assert [one.path for one in world.store.origins(MINE)] == [kept, referred]
    [stat] = world.store.stat()
    assert (stat.origins, stat.entries, stat.kept, stat.size) == (2, 513, 1, CHUNK_BYTES)


def test_names_that_are_no_utf8_are_kept_as_they_are(world: World) -> None:
    path = Path(os.fsdecode(os.fsencode(world.folder) + b"/\xff\n.raw"))
    path.write_bytes(CHUNK)
    world.store.refer(MINE, path, parts_of(CHUNK))
    assert world.holds(SMALL) == [True]
    assert [one.path for one in world.store.origins(MINE)] == [path]


UNITS = CHUNK_BYTES // UNIT_BYTES


def kinds(world: World) -> dict[str, Kind]:
    return {one.path.name: one.kind for one in world.store.origins(MINE)}


def test_a_disk_that_is_learnt_takes_at_most_a_quarter_and_displaces_nothing_that_was_added(
    world: World,
) -> None:
    store = world.again(Bounds(1 << 30, 4 * UNITS))
    template, parts = world.image(CHUNK + OTHER, "template")
    assert store.refer(MINE, template, parts).complete
    store.keep(MINE, Path("copy"), [THIRD[: CHUNK_BYTES // 2]])
    world.clock.time += 100
    large, parts = world.image(random.Random(6).randbytes(2 * CHUNK_BYTES), "large")
    learnt = store.refer(MINE, large, parts, learnt=True)
    assert not learnt.complete
    assert learnt.entries <= UNITS
    assert kinds(world) == {"template": Kind.REFERENCE, "copy": Kind.KEPT, "large": Kind.LEARNT}
    assert world.holds(CHUNK[:4096], OTHER[-4096:], THIRD[:4096]) == [True] * 3


def test_where_only_what_was_added_is_there_nothing_is_learnt(world: World) -> None:
    store = world.again(Bounds(1 << 30, 4 * UNITS))
    template, parts = world.image(CHUNK + OTHER + THIRD + random.Random(7).randbytes(CHUNK_BYTES), "template")
    assert store.refer(MINE, template, parts).complete
    path, parts = world.image(random.Random(6).randbytes(CHUNK_BYTES), "disk")
    added = store.refer(MINE, path, parts, learnt=True)
    assert (added.entries, added.complete) == (0, False)
    assert world.holds(CHUNK[:4096], OTHER[:4096], THIRD[:4096]) == [True] * 3


def test_what_was_learnt_once_goes_before_what_another_vm_has_found(world: World) -> None:
    store = world.again(Bounds(1 << 30, 4 * UNITS))
    for name, content in (("a", CHUNK), ("b", OTHER), ("c", THIRD)):
        world.clock.time += 100
        path, parts = world.image(content, name)
        assert store.refer(MINE, path, parts, learnt=True).complete
    world.clock.time += 100
    assert world.holds(CHUNK[:4096]) == [True]
    assert kinds(world) == {"a": Kind.FOUND, "b": Kind.LEARNT, "c": Kind.LEARNT}
    world.clock.time += 20 * 86_400
    for seed in range(6, 9):
        path, parts = world.image(random.Random(seed).randbytes(CHUNK_BYTES), f"new-{seed}")
        assert store.refer(MINE, path, parts, learnt=True).complete
    assert world.holds(CHUNK[4096:8192], OTHER[:4096], THIRD[:4096]) == [True, False, False]
    world.clock.time += 31 * 86_400  # found no more
    for seed in range(10, 14):
        path, parts = world.image(random.Random(seed).randbytes(CHUNK_BYTES), f"new-{seed}")
        assert store.refer(MINE, path, parts, learnt=True).complete
    assert world.holds(CHUNK[:4096]) == [False]


def test_what_was_added_stays_added_when_it_is_learnt_anew(world: World) -> None:
    path, parts = world.image(CHUNK)
    world.store.refer(MINE, path, parts)
    world.store.refer(MINE, path, parts, learnt=True)
    assert kinds(world) == {path.name: Kind.REFERENCE}
    other, parts = world.image(OTHER, "other")
    world.store.refer(MINE, other, parts, learnt=True)
    world.store.refer(MINE, other, parts, learnt=True)
    assert kinds(world)[other.name] is Kind.LEARNT
    world.store.refer(MINE, other, parts)
    assert kinds(world)[other.name] is Kind.REFERENCE
    assert len(world.store.origins(MINE)) == 2


@pytest.mark.parametrize("seed", range(5))
def test_whatever_comes_and_is_asked_for_the_bounds_hold_and_learning_takes_nothing_from_others(
    world: World, seed: int
) -> None:
    chance = random.Random(seed)
    bounds = Bounds(2 * CHUNK_BYTES, 5 * UNITS)
    store = world.again(bounds)
    contents = [chance.randbytes(chance.randrange(1, 2 * UNITS) * UNIT_BYTES) for _ in range(8)]
    for _ in range(25):
        world.clock.time += chance.choice([1, 3600, 10 * 86_400])
        which = chance.randrange(len(contents))
        before = {one.number: one for one in store.origins(MINE)}
        path, parts = world.image(contents[which], f"disk-{which}")
        match chance.choice(["learn", "learn", "add", "keep", "ask"]):
            case "learn":
                added = store.refer(MINE, path, parts, learnt=True)
                now = int(world.clock.now())
                for one in before.keys() - {one.number for one in store.origins(MINE)}:
                    assert before[one].path == path or standing(before[one], now) is Standing.ONCE
                if kinds(world)[path.name] is Kind.LEARNT:
                    assert added.entries <= learnt_at_most(bounds.entries)
            case "add":
                store.refer(MINE, path, parts)
            case "keep":
                store.keep(MINE, path, [contents[which][:CHUNK_BYTES]])
            case _:
                world.holds(contents[which][:4096])
        for stat in store.stat():
            assert stat.entries <= bounds.entries
            assert stat.size <= bounds.bytes


def test_a_collection_takes_nothing_that_is_of_use(world: World) -> None:
    world.store.keep(MINE, Path("a"), [CHUNK])
    path, parts = world.image(OTHER)
    world.store.refer(MINE, path, parts)
    collected = world.store.collect(MINE)
    assert (collected.origins, collected.entries, collected.size, collected.leftovers) == (0, 0, 0, 0)
    assert world.holds(CHUNK, OTHER[:4096]) == [True, True]


def test_a_bound_that_was_lowered_is_met_by_a_collection(world: World) -> None:
    for name, chunk in (("a", CHUNK), ("b", OTHER), ("c", THIRD)):
        world.clock.time += 100
        world.store.keep(MINE, Path(name), [chunk])
    store = world.again(Bounds(2 * CHUNK_BYTES, 10_000))
    collected = store.collect(MINE)
    assert (collected.origins, collected.entries, collected.size) == (1, 257, CHUNK_BYTES)
    assert world.holds(CHUNK, OTHER, THIRD) == [False, True, True]
    assert world.again(Bounds(1 << 30, 300)).collect(MINE).origins == 1
    assert world.holds(OTHER, THIRD) == [False, True]
