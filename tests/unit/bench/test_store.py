"""The benchmark of the content store measures all that it promises; neither speed nor sharing is tested."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench import distributions
from bench.distributions import Pair
from bench.store import GRAINS, main

from fakes.disk_images import disk_content


def test_a_quick_benchmark_moves_each_second_disk_and_measures_each_rate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = disk_content()
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(content)
    second.write_bytes(content[4096:] + content[:9000])
    monkeypatch.setattr(distributions, "pairs", lambda *_, **__: ([Pair("two", first, second)], "noise"))
    results = tmp_path / "store.json"
    assert main(["--quick", "--json", str(results), "--folder", str(tmp_path)]) == 0
    told = json.loads(results.read_text())
    crossed = told["crossed"]["two"]
    assert 0 < crossed["sent"] < crossed["not_zero"] / 10
    assert set(crossed["would_be_sent"]) == {str(grain) for grain in GRAINS}
    assert told["ratios"]["second_vm_bytes"] < 0.2
    assert len(told["rates"]) == 6
    assert all(rate > 0 for rate in told["rates"].values())
    assert told["index_bytes_per_entry"] > 8
    assert "second_vm_bytes=" in capsys.readouterr().out


def test_no_runs_are_a_usage_error() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--quick", "--runs", "0"])
    assert ended.value.code == 2
