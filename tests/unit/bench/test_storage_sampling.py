"""What the benchmark of sampling computes; that it runs needs a guest, and speed is not tested."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from bench.storage_sampling import Cost, hot_chunks, main

PROJECT = Path(__file__).parents[3]


def test_a_second_in_ten_costs_a_tenth_of_what_a_watched_second_costs() -> None:
    assert Cost([100.0], [0.9, 0.7], [1.0, 1.0]).left == pytest.approx(0.98)
    assert Cost([100.0], [1.0], [2.0]).left == 1.0


def test_the_zones_are_a_tenth_of_the_disk() -> None:
    zones = hot_chunks()
    assert 102 <= len(zones) <= 120
    assert {0, 10, 103, 921} <= zones
    assert 50 not in zones


def test_no_turns_are_a_usage_error() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--turns", "0"])
    assert ended.value.code == 2


def test_the_script_names_it() -> None:
    told = subprocess.run([PROJECT / "script" / "bench"], capture_output=True, text=True, check=False)
    assert "script/bench storage --sampling" in told.stderr
