"""Counts of reads and writes forget, stay small, and find what is popular."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from korora.agents.dataorg import popularity as module
from korora.agents.dataorg.popularity import Popularity
from korora.ports.sampling import Requests

MIB = 1 << 20
TIB = 1 << 40
NOTHING: Requests = np.empty((0, 2), np.int64)


def requests(*spans: tuple[int, int]) -> Requests:
    return np.array(spans, np.int64).reshape(-1, 2)


def known(popularity: Popularity) -> dict[int, tuple[float, float]]:
    chunks, reads, writes = popularity.counts()
    return {
        int(chunk): (float(read), float(write))
        for chunk, read, write in zip(chunks, reads, writes, strict=True)
    }


def test_a_request_counts_for_each_chunk_that_it_touches() -> None:
    counted = Popularity(8 * MIB)
    counted.add(1.0, 1.0, requests((MIB - 512, 1024), (0, 4096)), requests((3 * MIB, 2 * MIB)))
    assert known(counted) == {0: (2, 0), 1: (1, 0), 3: (0, 1), 4: (0, 1)}


def test_what_lies_outside_the_disk_is_left_out() -> None:
    counted = Popularity(2 * MIB + 512)
    counted.add(1.0, 1.0, requests((-5, 10), (2 * MIB + 512, 1), (1, 0), (3, -4)), NOTHING)
    counted.add(1.0, 1.0, requests((2 * MIB, 1 << 62)), requests((1 << 62, 1 << 62)))
    assert known(counted) == {2: (1, 0)}


def test_counts_halve_with_every_half_life_and_so_does_the_time_they_were_counted_in() -> None:
    counted = Popularity(4 * MIB, half_life_s=100)
    counted.add(0.0, 1.0, requests(*[(0, 512)] * 8), NOTHING)
    counted.decay(200.0)
    assert known(counted) == {0: (2, 0)}
    assert counted.frequencies().reads_per_s.tolist() == [8]


def test_a_clock_that_goes_back_changes_nothing_but_the_counts() -> None:
    counted = Popularity(4 * MIB, half_life_s=1)
    counted.add(1000.0, 1.0, requests((0, 512)), NOTHING)
    counted.add(5.0, 1.0, requests((0, 512)), NOTHING)
    assert known(counted) == {0: (2, 0)}
    assert counted.at == 1000.0


def test_a_chunk_that_nobody_uses_any_more_is_forgotten() -> None:
    counted = Popularity(4 * MIB, half_life_s=10)
    counted.add(0.0, 1.0, requests((0, 512)), NOTHING)
    counted.decay(100.0)
    assert len(counted) == 0


def test_of_a_disk_of_10_tib_at_most_6_mib_are_held() -> None:
    counted = Popularity(10 * TIB)
    random = np.random.default_rng(1)
    for second in range(12):
        offsets = random.integers(0, 10 * TIB // 4096, 100_000) * 4096
        counted.add(float(second), 1.0, np.column_stack((offsets, np.full(100_000, 4096))), NOTHING)
    assert len(counted) == module.KEPT_MAX
    assert counted.bytes_held == 12 * module.KEPT_MAX == 6 * MIB


def test_the_least_used_chunks_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_MAX", 3)
    counted = Popularity(16 * MIB)
    counted.add(0.0, 1.0, requests(*[(chunk * MIB, 1) for chunk in (7, 7, 2, 2, 9, 9, 4)]), NOTHING)
    assert set(known(counted)) == {2, 7, 9}


def test_the_hot_set_is_found_from_three_samples_of_a_second() -> None:
    """90 % of the reads in a tenth of the disk, about 1,300 a second: the load of the field notes."""
    random = np.random.default_rng(3)
    zones = np.concatenate([np.arange(k * 102, k * 102 + 11) for k in range(10)])
    counted = Popularity(1024 * MIB)
    for second in (0.0, 10.0, 20.0):
        chunks = np.where(
            random.random(1300) < 0.9, random.choice(zones, 1300), random.integers(0, 1024, 1300)
        )
        counted.add(second, 1.0, np.column_stack((chunks * MIB, np.full(1300, 4096))), NOTHING)
    hot = set(counted.hot().tolist())
    assert len(hot & set(zones.tolist())) / len(zones) >= 0.85
    assert len(hot - set(zones.tolist())) <= 20


def test_of_an_even_load_hardly_anything_is_hot() -> None:
    random = np.random.default_rng(4)
    counted = Popularity(1024 * MIB)
    counted.add(
        0.0, 1.0, np.column_stack((random.integers(0, 1024, 20_000) * MIB, np.full(20_000, 512))), NOTHING
    )
    assert len(counted.hot()) < 10


def test_stray_reads_of_a_large_disk_are_not_hot() -> None:
    counted = Popularity(10 * TIB)
    counted.add(0.0, 1.0, requests((0, 1), (5 * MIB, 1), (5 * MIB, 1), *[(9 * MIB, 1)] * 3), NOTHING)
    assert counted.hot().tolist() == [9]


def test_a_fixed_threshold_is_reads_a_second_and_the_most_read_come_first() -> None:
    counted = Popularity(8 * MIB)
    counted.add(0.0, 2.0, requests((0, 1), *[(MIB, 1)] * 6, *[(2 * MIB, 1)] * 9), NOTHING)
    assert counted.hot(reads_per_s=1.0).tolist() == [2, 1]
    assert counted.hot(reads_per_s=1.0, limit=1).tolist() == [2]
    assert counted.hot(reads_per_s=0.0).tolist() == [2, 1, 0]


def test_writes_alone_make_nothing_hot() -> None:
    counted = Popularity(8 * MIB)
    counted.add(0.0, 1.0, NOTHING, requests(*[(MIB, 4096)] * 1000))
    assert counted.hot(reads_per_s=0.0).tolist() == []


@pytest.mark.parametrize(("size", "half_life_s"), [(-1, 1.0), (1, 0.0), (1, float("nan")), (1, float("inf"))])
def test_no_disk_and_no_half_life_are_refused(size: int, half_life_s: float) -> None:
    with pytest.raises(ValueError):
        Popularity(size, half_life_s=half_life_s)


def test_of_the_largest_disk_that_qemu_knows_only_the_first_4_pib_are_counted() -> None:
    counted = Popularity((1 << 63) - 512)
    counted.add(1.0, 1.0, requests((4 << 50, 512), ((1 << 63) - 1024, 512), ((4 << 50) - 512, 1024)), NOTHING)
    assert known(counted) == {(1 << 32) - 1: (1, 0)}


def test_a_disk_that_was_made_smaller_keeps_what_is_known_of_its_beginning() -> None:
    counted = Popularity(8 * MIB)
    counted.add(5.0, 2.0, requests((0, 1), (3 * MIB, 1)), requests((7 * MIB, 1)))
    smaller = counted.resized(2 * MIB)
    assert (known(smaller), smaller.size, smaller.at, smaller.observed_s) == ({0: (1, 0)}, 2 * MIB, 5.0, 2.0)
    assert known(counted.resized(1 << 40)) == known(counted)


def test_a_disk_of_no_bytes_has_no_hot_chunks() -> None:
    counted = Popularity(0)
    counted.add(1.0, 1.0, requests((0, 1)), requests((0, 1)))
    assert len(counted) == len(counted.hot()) == 0


spans = st.lists(st.tuples(st.integers(-MIB, 40 * MIB), st.integers(-10, 3 * MIB)), max_size=30)
samples = st.lists(st.tuples(st.floats(0, 1000), spans, spans), max_size=6)


@settings(max_examples=60)
@given(st.integers(0, 32 * MIB), samples)
def test_counts_are_those_of_a_plain_dictionary(
    size: int,
    given_samples: list[tuple[float, list[tuple[int, int]], list[tuple[int, int]]]],
) -> None:
    counted = Popularity(size, half_life_s=1e12)
    plain: dict[int, list[int]] = {}
    for at, reads, writes in given_samples:
        counted.add(at, 1.0, requests(*reads), requests(*writes))
        for column, asked in enumerate((reads, writes)):
            for offset, length in asked:
                end = min(offset + length, size)
                if 0 <= offset < size and length > 0:
                    for chunk in range(offset // MIB, (end - 1) // MIB + 1):
                        plain.setdefault(chunk, [0, 0])[column] += 1
    assert {chunk: pytest.approx(times, rel=1e-3) for chunk, times in plain.items()} == {
        chunk: list(times) for chunk, times in known(counted).items()
    }
