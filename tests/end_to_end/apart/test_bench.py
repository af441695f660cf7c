"""The benchmark runs, completes every way, and writes the figures it promises. Nothing about speed here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="QEMU is not installed"),
    pytest.mark.skipif(not shutil.which("certtool"), reason="certtool is not installed"),
]
PROJECT = Path(__file__).parents[3]
PROMISED = {"wall_vs_tcp", "wall_vs_tls", "wall_vs_multifd_tls", "cpu_vs_tls", "downtime_vs_tcp"}


def told_by(module: str, *words: str, results: Path) -> Any:
    """What a benchmark that ends well writes there."""
    done = subprocess.run(
        [sys.executable, "-m", module, *words, "--json", str(results)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(results.read_text())


def test_a_quick_benchmark_completes_every_way_and_writes_what_is_promised(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    told = told_by("bench.migrate", "--quick", results=results)
    assert set(told) >= {"runs", "medians", "ratios", "machine"}
    assert set(told["ratios"]) >= PROMISED
    assert {run["way"] for run in told["runs"]} == {"tcp", "tls", "multifd-tls-2", "korora"}
    for run in told["runs"]:
        assert run["wall_s"] > 0
        assert run["bytes_sent"] > 300e6
        assert run["ticks"]["received"] > 50
        assert run["ticks"]["doubled"] == 0
        if run["way"] == "korora":
            assert max(run["peak_mib"].values()) > 0
            assert run["phases_ms"]["transfer"] > 0


@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="no FUSE")
def test_a_guest_on_slow_storage_is_moved_each_way_and_what_it_got_is_written(tmp_path: Path) -> None:
    results, trace = tmp_path / "results.json", tmp_path / "trace"
    words = ["--mib", "64", "--iops", "20000", "--mb-per-s", "20", "--runs", "1", "--loads", "zones"]
    words += ["--ways", "qemu-shallow,korora-outsource", "--trace", str(trace)]
    told = told_by("bench.storage_throttled", *words, results=results)
    assert {"iops_vs_idle", "iops_vs_mirror", "p99_vs_idle", "write_p99_vs_idle"} <= set(told["ratios"])
    for one in told["moves"]:
        assert one["move"]["idle"]["iops"] > 0
        assert sum(one["reads_mib"].values()) >= 60
    assert trace.read_text().count(" idle ") > 5


def test_an_unknown_benchmark_is_a_usage_error() -> None:
    done = subprocess.run(
        [PROJECT / "script" / "bench", "nothing"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "script/bench migrate" in done.stderr
