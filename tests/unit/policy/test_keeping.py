"""Kept disks go when they are too old, and the oldest of them when they are too many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from korora.model.configuration import DAY_S, KeptBounds
from korora.model.kept import KeptDisk
from korora.policy.keeping import kept_until, overdue

GIB = 1 << 30


def kept(name: str, at: int, used: int = 0) -> KeptDisk:
    return KeptDisk(vm="web", uuid="u", name=name, format="raw", size=used, root="", to="b", at=at, used=used)


def names(told: list[KeptDisk], bounds: KeptBounds, now: float) -> list[str]:
    return [one.name for one, _ in overdue(told, bounds, now)]


def test_one_is_kept_until_its_last_day_is_over() -> None:
    bounds, one = KeptBounds(days=30), kept("data", at=1000)
    assert kept_until(one, bounds) == 1000 + 30 * DAY_S
    assert names([one], bounds, 1000 + 30 * DAY_S - 1) == []
    assert names([one], bounds, 1000 + 30 * DAY_S) == ["data"]
    ((_, why),) = overdue([one], bounds, 1e12)
    assert why == "kept for 30 days"


def test_without_bounds_all_are_kept_for_good() -> None:
    bounds = KeptBounds(days=0, gib=0)
    assert kept_until(kept("data", at=1), bounds) == 0
    assert names([kept("data", at=1, used=1 << 60)], bounds, 1e12) == []


def test_those_that_left_first_make_room() -> None:
    told = [kept("second", 20, 2 * GIB), kept("third", 30, 2 * GIB), kept("first", 10, GIB)]
    assert names(told, KeptBounds(0, 5), 40) == []
    assert names(told, KeptBounds(0, 4), 40) == ["first"]
    assert names(told, KeptBounds(0, 3), 40) == ["first", "second"]
    assert [why for _, why in overdue(told, KeptBounds(0, 4), 40)] == ["more than 4 GiB are kept"]


def test_what_is_too_old_makes_room_for_nothing_younger() -> None:
    told = [kept("old", 0, 9 * GIB), kept("young", 2 * DAY_S, GIB)]
    assert names(told, KeptBounds(1, 1), 2 * DAY_S) == ["old"]


@given(
    st.lists(st.tuples(st.integers(0, 9 * DAY_S), st.integers(0, 3 * GIB)), max_size=8),
    st.integers(0, 3),
    st.integers(0, 4),
)
def test_what_stays_is_young_enough_and_fits(ones: list[tuple[int, int]], days: int, gib: int) -> None:
    told = [kept(f"d{number}", at, used) for number, (at, used) in enumerate(ones)]
    gone = {one.name for one, _ in overdue(told, KeptBounds(days, gib), 9 * DAY_S)}
    stays = [one for one in told if one.name not in gone]
    assert all(not days or one.at + days * DAY_S > 9 * DAY_S for one in stays)
    assert not gib or sum(one.used for one in stays) <= gib * GIB
    if not days:
        assert all(
            one.at <= min((stay.at for stay in stays), default=9 * DAY_S) for one in told if one.name in gone
        )
