"""Of two VMs that are to come at one time, the second counts the first."""

from __future__ import annotations

from contextlib import ExitStack

from hypothesis import given
from hypothesis import strategies as st

from korora.migration.greeting.reservations import Reservations


def test_each_counts_those_before_it_and_a_check_counts_all() -> None:
    kept = Reservations()
    with kept.held(lambda: 10) as first, kept.held(lambda: 20) as second:
        assert kept.before(first) == (0, 0)
        assert kept.before(second) == (1, 10)
        assert kept.before() == (2, 30)
    assert kept.before() == (0, 0)


def test_what_the_kernel_has_allocated_is_owed_no_more_but_keeps_its_place() -> None:
    kept = Reservations()
    allocated: list[bool] = []
    with kept.held(lambda: 0 if allocated else 10):
        assert kept.before() == (1, 10)
        allocated.append(True)
        assert kept.before() == (1, 0)


@given(st.lists(st.integers(0, 10)))
def test_the_sum_of_what_all_see_is_never_less_than_what_is_owed(sizes: list[int]) -> None:
    kept = Reservations()
    with ExitStack() as undo:
        seen = []
        for size in sizes:
            one = undo.enter_context(kept.held(lambda size=size: size))  # type: ignore[misc]
            seen.append(kept.before(one)[1] + size)
        assert seen == [sum(sizes[: place + 1]) for place in range(len(sizes))]
