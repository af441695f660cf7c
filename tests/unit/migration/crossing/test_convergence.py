"""The last pages get little time at first, and in the end what was agreed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from korora.migration.crossing.convergence import STRICT_MS, downtime_allowed_ms


def test_a_guest_that_hardly_writes_is_away_for_the_strict_limit() -> None:
    assert [downtime_allowed_ms(n, 300) for n in (0, 1, 2)] == [STRICT_MS] * 3


def test_each_further_round_doubles_it_up_to_the_limit() -> None:
    assert [downtime_allowed_ms(n, 300) for n in (3, 4, 5, 60)] == [100, 200, 300, 300]


@given(st.integers(0, 10**4), st.integers(1, 2 * 10**6))
def test_it_never_shrinks_nor_passes_the_limit(round_: int, limit_ms: int) -> None:
    now, next_ = (downtime_allowed_ms(n, limit_ms) for n in (round_, round_ + 1))
    assert 0 < now <= next_ <= limit_ms
