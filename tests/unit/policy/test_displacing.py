"""What goes first when a content store is full: what was learnt once, and never what was added for it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from korora.model.configuration import DAY_S
from korora.model.stored import SHARED, Kind, Origin
from korora.policy.displacing import FOUND_FOR_DAYS, Standing, goes_first, learnt_at_most, standing

NOW = 1_800_000_000
ADDED = {Kind.REFERENCE, Kind.KEPT}


def origin(number: int, kind: Kind, ago_s: int) -> Origin:
    return Origin(SHARED, number, kind, Path("a"), 1, 0, NOW - ago_s)


ORIGINS = st.lists(
    st.tuples(st.sampled_from(Kind), st.integers(0, 3 * FOUND_FOR_DAYS * DAY_S)), max_size=12
).map(lambda drawn: [origin(number, *one) for number, one in enumerate(drawn)])


@given(ORIGINS)
def test_what_is_learnt_displaces_nothing_that_was_added_or_that_another_vm_found_lately(
    there: list[Origin],
) -> None:
    for gone in goes_first(there, Kind.LEARNT, NOW):
        assert gone.kind not in ADDED
        assert gone.kind is Kind.LEARNT or NOW - gone.used_at >= FOUND_FOR_DAYS * DAY_S


@given(ORIGINS, st.sampled_from(sorted(ADDED)))
def test_for_what_is_added_all_may_go_and_what_was_added_goes_last(there: list[Origin], coming: Kind) -> None:
    gone = goes_first(there, coming, NOW)
    assert sorted(one.number for one in gone) == [one.number for one in there]
    ranks = [standing(one, NOW) for one in gone]
    assert ranks == sorted(ranks)
    assert [one for one in gone if one.kind in ADDED] == gone[len(gone) - ranks.count(Standing.ADDED) :]


@given(ORIGINS)
def test_of_equal_standing_what_was_used_longest_ago_goes_first(there: list[Origin]) -> None:
    gone = goes_first(there, Kind.KEPT, NOW)
    for one, other in pairwise(gone):
        if standing(one, NOW) == standing(other, NOW):
            assert (one.used_at, one.number) < (other.used_at, other.number)


@given(ORIGINS)
def test_what_may_go_for_what_is_learnt_goes_first_for_what_is_added(there: list[Origin]) -> None:
    learnt = goes_first(there, Kind.LEARNT, NOW)
    assert goes_first(there, Kind.REFERENCE, NOW)[: len(learnt)] == learnt


@given(st.integers(0, 1 << 32))
def test_four_disks_that_were_learnt_always_fit_together(entries: int) -> None:
    assert 0 <= 4 * learnt_at_most(entries) <= entries
