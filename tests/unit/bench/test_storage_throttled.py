"""What the benchmark of slow storage computes; that it runs needs two hosts, and speed is not tested."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.slow_figures import AUTO, OUTSOURCED, PEER, Slow, figures_of, goals_of, ratios_of
from bench.storage_guest import Load
from bench.storage_movers import Move
from bench.storage_throttled import main
from bench.throttled_folder import BURST_S, Throttle
from bench.throttled_storage import ThrottledStorage
from hypothesis import given
from hypothesis import strategies as st

PROJECT = Path(__file__).parents[3]
MIB = 1 << 20
MOUNTS = pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="needs root and FUSE")


# -- how long a request waits -----------------------------------------------------------------------------


def test_a_tenth_of_a_second_s_requests_go_at_once_and_the_others_at_the_rate() -> None:
    throttle = Throttle(1000, 0)
    due = [throttle.due(5.0, 4096) for _ in range(301)]
    assert due[:101] == [5.0] * 101
    assert due[300] == pytest.approx(5.0 + 200 / 1000, abs=0.002)


def test_a_large_request_makes_the_next_one_wait_for_its_bytes() -> None:
    throttle = Throttle(0, 10 * MIB)
    assert throttle.due(0.0, 5 * MIB) == 0.0
    assert throttle.due(0.0, 4096) == pytest.approx(0.4)


def test_what_was_not_asked_for_is_not_saved_up() -> None:
    throttle = Throttle(1000, 0)
    throttle.due(0.0, 1)
    due = [throttle.due(60.0, 1) for _ in range(202)]
    assert due[-1] == pytest.approx(60.1, abs=0.002)


def test_without_a_rate_nothing_waits() -> None:
    throttle = Throttle(0, 0)
    assert [throttle.due(1.0, MIB) for _ in range(1000)] == [1.0] * 1000


@given(
    st.lists(
        st.tuples(st.floats(0, 0.5), st.sampled_from([512, 4096, 1 << 19, MIB])), min_size=1, max_size=60
    ),
    st.integers(10, 5000),
    st.integers(1, 100),
)
def test_no_stretch_of_time_has_more_than_the_rates_give(
    asked: list[tuple[float, int]], iops: int, mb_per_s: int
) -> None:
    throttle, now, gone = Throttle(iops, mb_per_s * MIB), 0.0, list[tuple[float, int]]()
    for pause, size in asked:
        now += pause
        gone.append((throttle.due(now, size), size))
    assert [due for due, _ in gone] == sorted(due for due, _ in gone)
    for first in range(len(gone)):
        for last in range(first, len(gone)):
            some, passed = gone[first : last + 1], gone[last][0] - gone[first][0] + 1e-6
            assert len(some) - 2 <= iops * (passed + BURST_S)
            # One may begin while the bucket is not full, and fill it by all that it has.
            before = sum(size for _, size in some[:-1]) - max(size for _, size in some)
            assert before <= mb_per_s * MIB * (passed + BURST_S) + 1


# -- the folder -------------------------------------------------------------------------------------------


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[ThrottledStorage]:
    made = ThrottledStorage(tmp_path / "slow", tmp_path / "beside", 100_000, 1 << 40)
    yield made
    made.close()


@MOUNTS
def test_what_lies_beside_is_read_and_written_through_the_folder(storage: ThrottledStorage) -> None:
    content = os.urandom(3 * MIB + 7)
    (storage.beside / "disk").write_bytes(content)
    assert (storage.folder / "disk").read_bytes() == content
    with (storage.folder / "disk").open("r+b") as disk:
        disk.seek(MIB - 3)
        disk.write(b"written")
    assert (storage.beside / "disk").read_bytes() == content[: MIB - 3] + b"written" + content[MIB + 4 :]


@MOUNTS
def test_what_changes_beside_is_read_at_once_for_nothing_is_cached(storage: ThrottledStorage) -> None:
    (storage.beside / "disk").write_bytes(b"one")
    with (storage.folder / "disk").open("rb", buffering=0) as disk:
        assert disk.read(3) == b"one"
        (storage.beside / "disk").write_bytes(b"two")
        assert os.pread(disk.fileno(), 3, 0) == b"two"


@MOUNTS
def test_a_file_in_it_is_cut_and_removed_and_one_that_is_not_there_is_missed(
    storage: ThrottledStorage,
) -> None:
    (storage.beside / "disk").write_bytes(b"abcdef")
    os.truncate(storage.folder / "disk", 2)
    (storage.folder / "disk").chmod(0o600)
    assert (storage.beside / "disk").stat().st_mode & 0o777 == 0o600
    assert (storage.beside / "disk").read_bytes() == b"ab"
    (storage.folder / "disk").unlink()
    assert not list(storage.beside.iterdir())
    with pytest.raises(FileNotFoundError):
        (storage.folder / "disk").read_bytes()


@MOUNTS
def test_nothing_is_mounted_once_it_is_closed(tmp_path: Path) -> None:
    storage = ThrottledStorage(tmp_path / "slow", tmp_path / "beside", 1000, MIB)
    assert storage.folder.is_mount()
    storage.close()
    assert not storage.folder.is_mount()
    storage.close()


# -- figures ----------------------------------------------------------------------------------------------


def _moved(way: str, load: str, iops: float, read_p99_ms: float = 8.0) -> Slow:
    idle, here = Load(2000, 4, 8, 4, 8, 4, 8), Load(iops, 1, 2, 1, read_p99_ms, 1, 4)
    return Slow(load, Move(way, 1, 60.0, idle, here, here=here, here_s=20.0), {})


def test_ratios_without_a_name_are_of_what_is_outsourced_under_a_load_with_zones() -> None:
    moves = [
        _moved(PEER, "zones", 500),
        _moved(OUTSOURCED, "zones", 4000, 16.0),
        _moved(OUTSOURCED, "zones", 3000, 16.0),
        _moved(AUTO, "flat", 1700),
    ]
    ratios = ratios_of(figures_of(moves))
    assert ratios["iops_vs_idle"] == 1.75
    assert ratios["iops_vs_mirror"] == 7.0
    assert ratios["p99_vs_idle"] == 2.0
    assert ratios["write_p99_vs_idle"] == 0.5
    assert ratios["iops_vs_idle, korora-auto, flat"] == 0.85
    assert goals_of(ratios) == {
        "iops_vs_idle": True,
        "iops_vs_mirror": True,
        "p99_vs_idle": True,
        "write_p99_vs_idle": True,
        "iops_vs_idle, korora-auto, flat": False,
    }


def test_what_was_not_measured_has_no_goal() -> None:
    assert goals_of(ratios_of(figures_of([_moved(PEER, "zones", 500)]))) == {}


@pytest.mark.parametrize("words", [["--runs", "0"], ["--ways", "by-hand"], ["--loads", "none"]])
def test_bad_words_are_a_usage_error(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2


def test_the_script_names_it() -> None:
    told = subprocess.run([PROJECT / "script" / "bench"], capture_output=True, text=True, check=False)
    assert "script/bench storage --throttled" in told.stderr
