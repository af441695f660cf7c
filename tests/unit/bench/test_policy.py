"""The benchmark of the policy asks every kind of request and writes what it promises; speed is not tested."""

from __future__ import annotations

import itertools
import json
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from bench.plot import log_chart
from bench.policy import QUICK, main
from bench.policy_world import Asked, World

from korora.policy.machine.omega.rules import RULES
from korora.policy.machine.running.machine import Machine
from korora.policy.proof.counterexample import insecure

PROJECT = Path(__file__).parents[3]
PROMISED = {
    "get",
    "release-access",
    "get (no)",
    "give",
    "rescind",
    "create",
    "delete",
    "write",
    "authenticate",
    "submit",
    "submit with its gets and releases",
    "transfer",
    "transfer with its gets and releases",
    "question",
    "error",
}
TAILS = {
    "give, to everybody",
    "delete of what everybody may open (no)",
    "rescind, from everybody",
    "create, put aside each thousand",
    "create, below one of many children",
    "delete, below one of many children",
    "get, by one subject of everything",
    "release-access, by it",
}
SVG = "{http://www.w3.org/2000/svg}"


def test_a_quick_benchmark_times_every_kind_and_writes_figures_and_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, picture = tmp_path / "policy.json", tmp_path / "policy.svg"
    files = ["--json", str(results), "--plot", str(picture), "--folder", str(tmp_path)]
    assert main(["--quick", "--runs", "2", *files]) == 0
    told = json.loads(results.read_text())
    assert set(told["kinds"]) == PROMISED | TAILS
    for kind in told["kinds"].values():
        assert 0 < kind["median"] <= kind["p99"] <= kind["p999"] <= kind["max"]
        assert kind["asked"] >= 2 * QUICK.migrations
    assert [one["objects"] for one in told["growth"]] == [100, 1000]
    assert all(set(one["kinds"]) == PROMISED for one in told["growth"])
    assert told["machine"]["python"]
    assert told["machine"]["accelerator"] == ""
    assert len(told["goals"]) == 3
    assert set(told["whole"]) == {"Cedar", "machine", "log", "whole decision"}
    assert told["whole"]["whole decision"]["median"] > told["whole"]["log"]["median"] > 0
    drawn = ET.fromstring(picture.read_text())  # noqa: S314  our own text
    assert len(drawn.findall(f"{SVG}polyline")) == 10
    printed = capsys.readouterr().out
    for name in PROMISED | TAILS:
        assert f"| {name} |" in printed


def test_the_installation_is_secure_and_stays_so_whatever_is_asked_in_it() -> None:
    world = World(QUICK)
    running = Machine(RULES, world.state)
    assert list(insecure(world.state)) == []
    plain = [world.readable(), world.gives(), world.creates(), world.writes(), world.authentications()]
    tails = [world.populars(), world.children(), world.openings()]
    procedures = [*world.submits(range(5)), *world.transfers(range(5))]
    asked: list[Asked] = [one for kind in (*plain, *tails) for one in itertools.islice(kind, 5)]
    for request, given in [*asked, *itertools.chain.from_iterable(procedures)]:
        assert running.decide(request, given).allowed, (request, given)
    assert list(insecure(world.state)) == []


def test_the_same_numbers_make_the_same_installation() -> None:
    assert World(QUICK).state.facts() == World(QUICK).state.facts()


def test_a_chart_has_its_axes_in_decades_and_a_line_for_each_series() -> None:
    series = {
        "one": [(1.0, 0.5), (100.0, 20.0)],
        "one, p99": [(1.0, 5.0), (100.0, 900.0)],
        "two <&>": [(10.0, 1.0)],
    }
    drawn = ET.fromstring(log_chart("a <title>", "x", "y", series))  # noqa: S314  our own text
    words = [text.text for text in drawn.iter(f"{SVG}text")]
    assert words[0] == "a <title>"
    assert {"1", "10", "100", "0.1", "1,000", "two <&>"} <= set(words)
    lines = drawn.findall(f"{SVG}polyline")
    assert lines[0].get("points") == "70.0,327.9 550.0,190.1"
    assert [bool(line.get("stroke-dasharray")) for line in lines] == [False, True, False]
    assert lines[0].get("stroke") == lines[1].get("stroke") != lines[2].get("stroke")


def test_a_chart_of_one_value_has_axes_too() -> None:
    ET.fromstring(log_chart("t", "x", "y", {"one": [(100, 1)]}))  # noqa: S314  our own text


def test_no_runs_are_a_usage_error() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--quick", "--runs", "0"])
    assert ended.value.code == 2


def test_the_benchmark_is_named_where_another_is_asked_for() -> None:
    done = subprocess.run(
        [PROJECT / "script" / "bench", "nothing"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "script/bench policy" in done.stderr
