"""Progress as a person sees it."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from korora.model.meter import SPANS, Meter, Reading, eta_range
from korora.model.progress import Phase

_BYTES = st.integers(min_value=0, max_value=2**45)


@given(st.lists(st.tuples(_BYTES, _BYTES, st.floats(0, 1e12)), max_size=40))
def test_the_bar_never_runs_backwards_whatever_the_hypervisor_says(
    readings: list[tuple[int, int, float]],
) -> None:
    meter, shown = Meter(), [0.0]
    for second, (sent, remaining, dirty) in enumerate(readings):
        meter, progress = meter.at_transfer(Reading(float(second), sent, remaining, dirty, 1))
        shown.append(progress.fraction)
    for phase in (Phase.SWITCHOVER, Phase.VERIFY, Phase.COMMIT, Phase.WIPE, Phase.RECEIPT):
        meter, progress = meter.at_phase(phase)
        shown.append(progress.fraction)
    assert shown == sorted(shown)
    assert shown[-1] <= 1.0


def test_the_spans_of_the_phases_touch_and_fill_the_bar() -> None:
    spans = [SPANS[phase] for phase in Phase]
    assert spans[0][0] == 0.0
    assert spans[-1][1] == 1.0
    assert all(before[1] == after[0] for before, after in pairwise(spans))


def test_a_guest_that_outruns_the_link_has_no_upper_estimate() -> None:
    assert eta_range(1000, 100.0, 150.0) == (10.0, None)
    assert eta_range(1000, 100.0, 50.0) == (10.0, 20.0)
    assert eta_range(1000, 0.0, 0.0) == (None, None)


def test_the_note_says_why_a_transfer_does_not_end() -> None:
    meter, _ = Meter().at_transfer(Reading(0.0, 0, 1000, 500.0, 5))
    _, progress = meter.at_transfer(Reading(1.0, 100, 1000, 500.0, 5))
    assert "converge" in progress.note
