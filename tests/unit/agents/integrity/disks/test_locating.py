"""Files are named where a sector that differs is theirs; what is nobody's is told as what it is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from korora.agents.integrity.disks import locating
from korora.agents.integrity.disks.locating import (
    METADATA,
    OUTSIDE,
    SECTOR_BYTES,
    Inhabited,
    Locating,
    Side,
    Stretches,
    TooMuchError,
    differing_sectors,
)
from korora.model.files import Located, Volume

S = SECTOR_BYTES


def rows(one: bytes, other: bytes, offset: int = 0) -> list[tuple[int, int]]:
    return [tuple(row) for row in differing_sectors(0, offset, one, other).rows.tolist()]


def of(*at: tuple[int, int], number: int = 0, unit: int = S) -> Stretches:
    return Stretches(number, np.array(at, np.int64).reshape(-1, 2), unit)


def file(path: bytes, *runs: tuple[int, int], volume: int = 1) -> Located:
    return Located(volume, path, "file", runs)


def disk(end: int, number: int = 1) -> Located:
    return Located(number, b"", "other", ((0, end),))


def names(found: Mapping[int, Inhabited], number: int = 0) -> dict[bytes, str]:
    return {one.path: one.on.value for one in found[number].files.values()} if number in found else {}


def test_sectors_that_differ_are_found_and_what_one_lacks_differs() -> None:
    same = bytes(4 * S)
    assert rows(same, same) == []
    assert rows(b"x" + same[1:], same, 7 * S) == [(7 * S, S)]
    assert rows(same[:-1] + b"x", same) == [(3 * S, S)]
    assert rows(same[: 2 * S], same) == [(2 * S, 2 * S)]
    assert rows(b"", bytes(700)) == [(0, 700)]
    assert rows(b"", b"") == []


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 3), st.integers(0, 41))
@settings(deadline=None)
def test_every_sector_that_differs_is_in_a_stretch_and_no_other(
    differ: list[bool], offset: int, shorter: int
) -> None:
    one = bytes(len(differ) * S)
    other = b"".join((b"\1" if is_so else b"\0") * S for is_so in differ)[: shorter * S]
    expected = {offset * S + number * S for number, is_so in enumerate(differ) if is_so or number >= shorter}
    found = {at for begin, length in rows(one, other, offset * S) for at in range(begin, begin + length, S)}
    assert found == expected


def test_a_file_is_named_where_it_differs_and_not_where_its_neighbour_does() -> None:
    located = Locating([of((10 * S, S), (20 * S, 2 * S))])
    for side in (Side.ONE, Side.OTHER):
        located.take(side, disk(100 * S))
        located.take(side, file(b"/a", (8 * S, 4 * S)))
        located.take(side, file(b"/b", (11 * S, 9 * S)))
        located.take(side, file(b"/c", (20 * S, 2 * S)))
    found = located.ended()
    assert names(found) == {b"/a": "both", b"/c": "both"}
    assert found[0].beside == []


def test_who_has_the_file_is_said() -> None:
    located = Locating([of((0, 2 * S))])
    located.take(Side.ONE, disk(100 * S))
    located.take(Side.ONE, file(b"/old", (0, S)))
    located.take(Side.OTHER, file(b"/new", (S, S)))
    assert names(located.ended()) == {b"/old": "one", b"/new": "other"}


def test_what_is_nobodys_is_metadata_within_a_volume_and_something_else_outside() -> None:
    located = Locating([of((0, S), number=0), of((10 * S, S), number=1), of((50 * S, S), number=2)])
    located.take(Side.ONE, Located(1, b"", "other", ((8 * S, 20 * S),)))
    located.take(Side.ONE, Volume(1, 8 * S, 20 * S, "ext4", files=True))
    located.take(Side.ONE, Located(2, b"", "other", ((40 * S, 20 * S),)))
    located.take(Side.ONE, Volume(2, 40 * S, 20 * S, "btrfs", files=False))
    found = located.ended()
    assert found[0].beside == [OUTSIDE]
    assert found[1].beside == [METADATA]
    assert found[2].beside == ["volume 2 (btrfs), whose files are not read"]


def test_what_was_not_looked_at_closely_counts_by_chunks() -> None:
    located = Locating([of((0, 10 << 20), number=3, unit=1 << 20)])
    located.take(Side.ONE, disk(100 << 20))
    located.take(Side.ONE, file(b"/a", (5 << 20, 1)))
    found = located.ended()
    assert names(found, 3) == {b"/a": "one"}
    assert found[3].beside == [METADATA]
    assert located._named.tolist() == [number == 5 for number in range(10)]


def test_names_are_bounded_and_that_there_are_more_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locating, "NAMES_MAX", 3)
    located = Locating([of((0, S))])
    for number in range(3):
        located.take(Side.ONE, file(b"/%d" % number, (0, S)))
    assert not located._found[0].more
    located.take(Side.ONE, file(b"/4", (0, S)))
    found = located.ended()
    assert (len(found[0].files), found[0].more) == (3, True)


def test_a_disk_that_tells_without_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locating, "STEPS_MAX", 1000)
    located = Locating([of(*((2 * number * S, S) for number in range(300)))])
    located.take(Side.ONE, file(b"/0", *[(0, 600 * S)] * 3))
    with pytest.raises(TooMuchError):
        located.take(Side.ONE, file(b"/1", (0, 600 * S)))


def test_without_differences_there_is_nothing() -> None:
    located = Locating([])
    located.take(Side.ONE, disk(100))
    located.take(Side.ONE, file(b"/a", (0, 100)))
    assert located.ended() == {}


_RUNS = st.lists(st.tuples(st.integers(0, 64), st.integers(0, 8)), max_size=4)


@given(
    st.lists(st.sampled_from([None, 0, 1, 2]), min_size=60, max_size=60),
    st.lists(_RUNS, max_size=6),
    st.tuples(st.integers(0, 60), st.integers(0, 60)),
)
@settings(deadline=None, max_examples=200)
def test_names_and_what_is_beside_are_those_of_every_sector_looked_at_one_by_one(
    owners: list[int | None], files: list[list[tuple[int, int]]], volume: tuple[int, int]
) -> None:
    """`owners`: of each sector, the range in which it differs; ranges are in order, as they are on a disk."""
    numbers = sorted(owner for owner in owners if owner is not None)
    ordered = iter(numbers)
    ranges = [None if owner is None else next(ordered) for owner in owners]
    stretches = [of((at * S, S), number=number) for at, number in enumerate(ranges) if number is not None]
    located = Locating(stretches)
    first, length = volume
    located.take(Side.ONE, Located(1, b"", "other", ((first * S, length * S),)))
    for number, runs in enumerate(files):
        located.take(Side.ONE, file(b"/%d" % number, *((at * S, size * S) for at, size in runs)))
    found = located.ended()
    owned = [{at for begin, size in runs for at in range(begin, begin + size)} for runs in files]
    for one in {number for number in ranges if number is not None}:
        sectors = {at for at, number in enumerate(ranges) if number == one}
        expected = {b"/%d" % number for number, own in enumerate(owned) if own & sectors}
        assert names(found, one).keys() == expected
        nobodys = sectors - set().union(*owned)
        beside = found[one].beside if one in found else []
        assert (METADATA in beside) is bool({at for at in nobodys if first <= at < first + length})
        assert (OUTSIDE in beside) is bool({at for at in nobodys if not first <= at < first + length})
