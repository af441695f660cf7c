"""The simulation's moves are whole, both orders are measured alike, and the schedule is no worse."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from bench.storage_simulation import main, move, watched
from bench.storage_workloads import CHUNKS, WATCHED_S, WORKLOADS, Trace, trace_of

PROJECT = Path(__file__).parents[3]


def trace(*asked: tuple[float, int, bool]) -> Trace:
    at, chunk, written = zip(*asked, strict=True)
    return Trace(np.array(at, float), np.array(chunk, np.int64), np.array(written, bool))


def test_a_disk_that_nobody_writes_crosses_once() -> None:
    told = move(trace((1.0, 7, False)), None)
    assert (told.sent_again, told.total_mib, told.turns) == (0, CHUNKS, 0)


def test_a_chunk_that_is_written_after_it_crossed_crosses_again() -> None:
    told = move(trace((WATCHED_S + 50, 0, True)), None)
    assert (told.sent_again, told.total_mib) == (1, CHUNKS + 1)


def test_a_chunk_that_is_written_before_its_turn_crosses_once() -> None:
    told = move(trace((WATCHED_S + 1, CHUNKS - 1, True)), None)
    assert (told.sent_again, told.total_mib) == (0, CHUNKS)


def test_a_read_is_remote_until_its_chunk_crossed_and_again_after_it_was_written() -> None:
    begins = WATCHED_S
    told = move(
        trace(
            (begins + 0.5, 100, False),  # remote: chunk 100 goes at 2 s
            (begins + 10.0, 100, False),
            (begins + 20.0, 100, True),
            (begins + 30.0, 100, False),  # remote
        ),
        None,
    )
    assert (told.remote_reads, told.reads) == (2, 3)


@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_schedule_is_no_worse_than_sequential_order(workload: str) -> None:
    made = [trace_of(workload, seed) for seed in range(1, 5)]
    sequential, schedule = ([move(one, known(one)) for one in made] for known in (lambda _: None, watched))
    assert sum(one.total_mib for one in schedule) <= sum(one.total_mib for one in sequential) * 1.01
    assert sum(one.remote_reads for one in schedule) <= sum(one.remote_reads for one in sequential) * 1.01


def test_a_report_has_a_ratio_of_each_measure_for_each_workload(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "simulation.json"
    assert main(["--runs", "1", "--json", str(file)]) == 0
    told = json.loads(file.read_text())
    assert set(told["ratios"]) == set(WORKLOADS) == set(told["workloads"])
    assert all(set(one) == {"sent_again", "remote_reads", "bytes"} for one in told["ratios"].values())
    assert "| boot | schedule |" in capsys.readouterr().out


def test_no_runs_are_a_usage_error() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--runs", "0"])
    assert ended.value.code == 2


def test_the_script_names_it() -> None:
    told = subprocess.run([PROJECT / "script" / "bench"], capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "script/bench storage --simulate" in told.stderr
