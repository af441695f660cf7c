"""A picture has so many cells at most, and nothing is lost between them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from korora.agents.dataorg.picture import picture
from korora.agents.dataorg.popularity import Popularity
from korora.model.heat import HOT_RUNS_MAX

MIB = 1 << 20
NOTHING = np.empty((0, 2), np.int64)


def learnt(size: int, chunks: list[int]) -> Popularity:
    made = Popularity(size)
    made.add(0.0, 1.0, np.array([(chunk * MIB, 1) for chunk in chunks], np.int64).reshape(-1, 2), NOTHING)
    return made


@given(st.integers(0, 500 * MIB), st.lists(st.integers(0, 600), max_size=60), st.integers(1, 300))
def test_cells_cover_the_disk_and_hold_all_that_was_read(size: int, chunks: list[int], cells: int) -> None:
    known = learnt(size, chunks)
    shown = picture("d", known, cells)
    count = -(-size // MIB)
    assert len(shown.cell_reads_per_s) == len(shown.cell_writes_per_s) <= cells
    assert len(shown.cell_reads_per_s) == -(-count // shown.cell_chunks)
    assert sum(shown.cell_reads_per_s) == pytest.approx(shown.reads_per_s, abs=0.1)
    assert [chunk for first, length in shown.hot for chunk in range(first, first + length)] == sorted(
        known.hot().tolist()
    )
    assert 0 <= shown.hot_share <= 1


def test_a_disk_of_10_tib_has_no_more_cells_than_asked_for() -> None:
    shown = picture("d", learnt(10 << 40, [5, 10_000_000]), 256)
    assert (len(shown.cell_reads_per_s), shown.cell_chunks) == (256, 40960)


def test_runs_of_popular_chunks_have_a_bound() -> None:
    scattered = [chunk for chunk in range(0, 2 * (HOT_RUNS_MAX + 5), 2) for _ in range(3)]
    shown = picture("d", learnt(1 << 40, scattered), 256)
    assert len(shown.hot) == HOT_RUNS_MAX
    assert shown.hot_chunks == HOT_RUNS_MAX + 5
