"""The benchmark of indicators measures all that it promises; speed is not tested."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench.indicators import QUICK, main


def test_a_quick_benchmark_measures_each_number_and_content(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "indicators.json"
    assert main(["--quick", "--runs", "1", "--json", str(results)]) == 0
    told = json.loads(results.read_text())
    assert [one["indicators"] for one in told["measured"]] == [count // 6 * 6 for count in QUICK]
    for one in told["measured"]:
        assert set(one["speeds"]) == {"log", "words", "random bytes", "log in UTF-16", "zeros"}
        assert all(speed["with_digests"] > 0 < speed["without_digests"] for speed in one["speeds"].values())
        assert one["loaded_mib"] >= 0
    printed = capsys.readouterr().out
    assert "| log in UTF-16 |" in printed


def test_no_runs_are_a_usage_error() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--quick", "--runs", "0"])
    assert ended.value.code == 2
