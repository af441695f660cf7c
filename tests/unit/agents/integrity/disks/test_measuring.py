"""Chunks measured although some cannot be read, kept, and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.image import MemoryImage
from korora.agents.integrity.disks import content, measuring
from korora.agents.integrity.disks.measuring import KeptLeaves, Leaves, Measured, read_leaves
from korora.errors import ToolError
from korora.model.flag import FlagKind, Place
from korora.ports.image import Range
from korora.protocol import flag
from korora.protocol.content_tree import CHUNK_BYTES, ContentTree, leaf

T = TypeVar("T")


def measured(image: MemoryImage) -> tuple[Measured, list[Leaves]]:
    into = Measured(image.size)
    return into, list(measuring.measured(image, "web", "disk0", into))


def disk(chunks: str, tail: int = 0) -> bytes:
    """A letter for each chunk; `0` is zeros."""
    made = b"".join(bytes(CHUNK_BYTES) if one == "0" else one.encode() * CHUNK_BYTES for one in chunks)
    return made + b"t" * tail


@pytest.mark.parametrize("tail", [0, 512])
@pytest.mark.parametrize("chunks", ["", "a", "000", "a00b0"])
def test_a_disk_that_can_be_read_has_the_root_that_it_has_otherwise(chunks: str, tail: int) -> None:
    image = MemoryImage(disk(chunks, tail))
    into, _ = measured(image)
    assert into.root == content.digest(image, lambda _: None)
    assert into.unreadable == []


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 4), max_size=5), st.integers(0, CHUNK_BYTES - 1))
def test_each_chunk_that_gives_an_error_has_its_placeholder_and_no_other_has(
    broken: set[int], at: int
) -> None:
    data = disk("abcde")
    image = MemoryImage(data, broken=[one * CHUNK_BYTES + at for one in broken])
    into, leaves = measured(image)
    assert {one.place.offset for one in into.unreadable} == {one * CHUNK_BYTES for one in broken}
    tree = ContentTree()
    for number in range(5):
        place = Place(disk="disk0", offset=number * CHUNK_BYTES, length=CHUNK_BYTES)
        name = flag.name("web", FlagKind.UNREADABLE, place, "")
        shown = flag.placeholder(name, CHUNK_BYTES) if number in broken else data[number * CHUNK_BYTES :]
        tree.add(leaf(shown[:CHUNK_BYTES]))
    assert into.root == tree.root(len(data))
    assert sum(one.count for one in leaves) == 5


def test_what_can_be_read_of_a_broken_chunk_is_kept_beside_the_placeholder_of_the_rest() -> None:
    image = MemoryImage(disk("a"), broken=[5000])
    into, _ = measured(image)
    (one,) = into.unreadable
    assert one.content is not None
    assert one.content[:4096] == b"a" * 4096
    assert one.content[4096:8192] == flag.placeholder(one.flag, 4096)
    assert one.content[8192:] == b"a" * (CHUNK_BYTES - 8192)


def test_nothing_is_kept_of_a_chunk_of_which_nothing_can_be_read() -> None:
    image = MemoryImage(disk("a"), broken=range(0, CHUNK_BYTES, 4096))
    (one,) = measured(image)[0].unreadable
    assert one.content is None


def test_a_disk_that_fails_everywhere_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "UNREADABLE_MAX", 2)
    image = MemoryImage(disk("abcd"), broken=[one * CHUNK_BYTES for one in range(4)])
    with pytest.raises(ToolError):
        measured(image)


def test_an_error_of_another_kind_is_no_broken_chunk() -> None:
    class Silent(MemoryImage):
        def each(self, ranges: Iterable[Range], work: Callable[[memoryview], T]) -> Iterator[T]:
            raise ToolError("no answer", kind="image-timeout")

    into = Measured(CHUNK_BYTES)
    with pytest.raises(ToolError, match="no answer"):
        list(measuring.measured(Silent(disk("a")), "web", "disk0", into))
    assert (into.root, into.unreadable) == (None, [])


# -- kept and compared ----------------------------------------------------------------------------------

LEAVES = st.lists(
    st.builds(Leaves, st.integers(1, 2**31), st.sampled_from([bytes([one]) * 32 for one in range(3)])),
    max_size=8,
)


def flat(leaves: list[Leaves]) -> list[tuple[int, bytes]]:
    """Neighbours of one kind as one."""
    runs: list[tuple[int, bytes]] = []
    for one in leaves:
        if runs and runs[-1][1] == one.leaf:
            runs[-1] = (runs[-1][0] + one.count, one.leaf)
        else:
            runs.append((one.count, one.leaf))
    return runs


@given(LEAVES)
def test_leaves_are_read_back_as_they_were_kept(leaves: list[Leaves]) -> None:
    kept = KeptLeaves()
    for one in leaves:
        kept.add(one)
    data = kept.done()
    assert data is not None
    assert flat(list(read_leaves(data))) == flat(leaves)


@given(st.binary(max_size=100))
def test_noise_is_no_kept_leaves(noise: bytes) -> None:
    with pytest.raises(ValueError):
        list(read_leaves(noise))


def test_too_many_leaves_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "RECORDS_MAX", 2)
    kept = KeptLeaves()
    for value in range(4):
        kept.add(Leaves(1, bytes([value]) * 32))
    assert kept.done() is None


SMALL = st.lists(st.builds(Leaves, st.integers(1, 3), st.sampled_from([b"a" * 32, b"b" * 32])), max_size=6)


def chunks_of(leaves: list[Leaves]) -> list[bytes]:
    return [one.leaf for one in leaves for _ in range(one.count)]


@given(SMALL, SMALL)
def test_comparing_finds_just_the_chunks_that_are_not_the_same(
    before: list[Leaves], now: list[Leaves]
) -> None:
    one, two = chunks_of(before), chunks_of(now)
    length = max(len(one), len(two))
    differ = {at for at in range(length) if one[at : at + 1] != two[at : at + 1]}
    found = measuring.compared("disk0", before, now, length * CHUNK_BYTES)
    assert (found.chunks_same, found.chunks_differ) == (length - len(differ), len(differ))
    named = {
        chunk
        for run in found.differ
        for chunk in range(run.offset // CHUNK_BYTES, (run.offset + run.length) // CHUNK_BYTES)
    }
    assert named == differ
