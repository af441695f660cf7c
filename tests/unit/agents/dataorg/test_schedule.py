"""The order of a copy is a permutation of what is wanted, in few sweeps, by what is read and written."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from korora.agents.dataorg.popularity import Popularity
from korora.agents.dataorg.schedule import LATE, NEAR, Run, order

MIB = 1 << 20


def counted(chunks: int, reads: dict[int, int], writes: dict[int, int] | None = None) -> Popularity:
    made = Popularity(chunks * MIB)
    asked = [
        np.array([(chunk * MIB, 512) for chunk, times in kind.items() for _ in range(times)], np.int64)
        for kind in (reads, writes or {})
    ]
    made.add(0.0, 1.0, asked[0].reshape(-1, 2), asked[1].reshape(-1, 2))
    return made


def flat(runs: Iterable[Run]) -> list[int]:
    return [chunk for run in runs for chunk in range(run.first, run.end)]


def whole(chunks: int) -> list[Run]:
    return [Run(0, chunks)]


def test_without_popularity_a_disk_is_copied_from_its_beginning_to_its_end() -> None:
    assert list(order(1000, whole(1000))) == [Run(0, 1000)]


def test_chunks_of_zeros_are_never_copied() -> None:
    data = [Run(3, 2), Run(10, 1), Run(11, 4)]
    hot_zeros = counted(20, {0: 50, 4: 50}, {1: 50, 12: 50})
    assert sorted(flat(order(20, data, hot_zeros, move_s=10))) == [3, 4, 10, 11, 12, 13, 14]


def test_what_is_read_goes_first_with_its_neighbours_and_what_changes_goes_last() -> None:
    known = counted(100, {70: 30}, {20: 30})
    ordered = flat(order(100, whole(100), known, move_s=10))
    assert ordered[:NEAR] == list(range(64, 80))
    assert ordered[-1] == 20


def test_what_is_read_and_changes_goes_last() -> None:
    known = counted(100, {20: 30}, {20: 30})
    assert flat(order(100, whole(100), known, move_s=10))[-1] == 20


def test_what_changes_most_goes_last_of_all() -> None:
    known = counted(100, {}, {5: 200, 50: 1, 90: 15})
    assert flat(order(100, whole(100), known, move_s=1))[-3:] == [50, 90, 5]


def test_a_write_that_will_hardly_come_again_in_time_changes_nothing() -> None:
    assert list(order(100, whole(100), counted(100, {}, {50: 1}), move_s=0.4)) == [Run(0, 100)]


def test_a_place_that_is_read_much_is_early_though_none_of_its_chunks_is() -> None:
    known = counted(1600, dict.fromkeys(range(160, 168), 1))
    assert known.hot().tolist() == []
    assert next(order(1600, whole(1600), known, move_s=10)) == Run(160, NEAR)


def test_where_a_quarter_was_seen_written_all_of_it_is_late() -> None:
    known = counted(1600, {}, dict.fromkeys((160, 165, 170, 175), 1))
    assert set(flat(order(1600, whole(1600), known, move_s=10))[-NEAR:]) == set(range(160, 160 + NEAR))


def test_one_chunk_that_changes_does_not_make_its_neighbours_late() -> None:
    known = counted(1600, {}, {165: 500})
    assert flat(order(1600, whole(1600), known, move_s=10)) == [*range(165), *range(166, 1600), 165]


def test_only_so_many_popular_chunks_are_early_as_is_asked_for() -> None:
    known = counted(100, {10: 30, 50: 40, 90: 50})
    assert flat(order(100, whole(100), known, move_s=10, limit=0)) == list(range(100))


def test_of_a_disk_that_shrank_what_is_known_beyond_it_does_not_matter() -> None:
    assert flat(order(10, whole(10), counted(100, {50: 50}, {60: 50}), move_s=10)) == list(range(10))


@pytest.mark.parametrize("run", [Run(-1, 2), Run(0, 11), Run(11, 0), Run(3, -1)])
def test_a_run_that_is_not_of_the_disk_is_refused(run: Run) -> None:
    with pytest.raises(ValueError):
        list(order(10, [run]))


def test_a_run_across_the_blocks_in_which_it_is_looked_for_stays_one() -> None:
    assert list(order(200_000, [Run(65_530, 70_000)])) == [Run(65_530, 70_000)]


def test_a_disk_of_no_chunks_has_no_runs() -> None:
    assert list(order(0, [])) == []


@st.composite
def disks(draw: st.DrawFn) -> tuple[int, list[Run], Popularity, float]:
    chunks = draw(st.integers(1, 300))
    wanted = []
    at = 0
    for gap, count in draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 60)), max_size=8)):
        first = min(at + gap, chunks)
        wanted.append(Run(first, min(count, chunks - first)))
        at = wanted[-1].end
    counts = st.dictionaries(st.integers(0, chunks - 1), st.integers(1, 60), max_size=40)
    return chunks, wanted, counted(chunks, draw(counts), draw(counts)), draw(st.floats(0, 1000))


@settings(max_examples=150)
@given(disks())
def test_every_wanted_chunk_comes_once_and_no_other(disk: tuple[int, list[Run], Popularity, float]) -> None:
    chunks, wanted, known, move_s = disk
    assert sorted(flat(order(chunks, wanted, known, move_s=move_s))) == flat(wanted)


@given(disks())
def test_the_order_is_the_same_for_the_same_disk(disk: tuple[int, list[Run], Popularity, float]) -> None:
    chunks, wanted, known, move_s = disk
    once = list(order(chunks, wanted, known, move_s=move_s))
    assert once == list(order(chunks, reversed(wanted), known, move_s=move_s))


@given(disks())
def test_a_disks_head_turns_back_a_bounded_number_of_times(
    disk: tuple[int, list[Run], Popularity, float],
) -> None:
    chunks, wanted, known, move_s = disk
    runs = list(order(chunks, wanted, known, move_s=move_s))
    assert sum(after.first < before.first for before, after in pairwise(runs)) <= LATE + 1
    assert all(run.count > 0 for run in runs)


@given(disks())
def test_runs_are_as_long_as_they_can_be(disk: tuple[int, list[Run], Popularity, float]) -> None:
    """Two runs that touch are of two sweeps."""
    chunks, wanted, known, move_s = disk
    runs = list(order(chunks, wanted, known, move_s=move_s))
    assert sum(before.end == after.first for before, after in pairwise(runs)) <= LATE + 1


def test_the_order_of_10_tib_takes_little_memory() -> None:
    chunks = 10 << 20
    known = counted(chunks, dict.fromkeys(range(0, 100000, 10), 30), dict.fromkeys(range(5, 900, 9), 9))

    def data() -> Iterator[Run]:
        return (Run(first, 700) for first in range(0, chunks - 700, 1000))

    tracemalloc.start()
    copied = sum(run.count for run in order(chunks, data(), known, move_s=3600))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert copied == 700 * len(range(0, chunks - 700, 1000))
    assert peak < 16 * MIB
