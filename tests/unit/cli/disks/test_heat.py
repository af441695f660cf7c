"""`korora disk heat`: a map that a person reads, the same for scripts, and words when there is nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.cli_site import CliSite, cli_site
from fakes.daemon import Answer
from korora.cli.disks.heat_map import BLOCKS, levels
from korora.cli.main import run

MIB = 1 << 20
DISK: dict[str, Any] = {
    "name": "system", "size": 128 * MIB, "chunk_bytes": MIB, "seen_s": 3.0, "reads_per_s": 120.5,
    "writes_per_s": 2.0, "known_chunks": 9, "held_bytes": 108, "hot_chunks": 2, "hot_share": 0.913,
    "hot": [[7, 2]], "cell_chunks": 1, "cell_reads_per_s": [0.0] * 7 + [100.0, 20.0] + [0.5] + [0.0] * 118,
    "cell_writes_per_s": [0.0] * 127 + [2.0],
}  # fmt: skip
Told = tuple[int, str, str]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[CliSite]:
    with cli_site(tmp_path) as made:
        yield made


@pytest.fixture
def told(site: CliSite, capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    def call(*words: str, why: str = "", disks: tuple[Any, ...] = (DISK,), cells: int = 256) -> Told:
        heat = {"vm": "web", "at": 1.0, "every_s": 10.0, "sample_s": 1.0, "why": why, "disks": list(disks)}
        site.a.routes["GET", f"/v1/vms/web/heat?cells={cells}"] = Answer(heat)
        with pytest.raises(SystemExit) as ended:
            run(site.command("disk", "heat", "web", *words))
        said = capsys.readouterr()
        return int(str(ended.value.code)), said.out, said.err

    return call


def test_a_map_shows_where_a_disk_is_read_and_written(told: Callable[..., Told]) -> None:
    code, out, _ = told()
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "system  128.0 MiB, each block 1.0 MiB"
    assert "  read 120 times a second, at most 100 in a block" in lines
    maps = [line for line in lines if line.startswith("  ") and ("·" in line or "█" in line)]
    assert maps[0].split()[-1] == "·······█▇▂" + "·" * 54
    assert maps[-1].split()[-1] == "·" * 63 + "█"
    assert len(maps) == 4
    assert "  popular: 2 chunks, 2.0 MiB, with 91% of the reads" in lines
    assert "none seen" in lines[-1]


def test_scripts_get_the_facts(told: Callable[..., Told]) -> None:
    code, out, _ = told("--json")
    assert code == 0
    assert json.loads(out)["disks"] == [DISK]


def test_one_disk_alone_can_be_asked_for(told: Callable[..., Told]) -> None:
    other = {**DISK, "name": "data"}
    code, out, _ = told("--disk", "data", "--json", disks=(DISK, other))
    assert code == 0
    assert [one["name"] for one in json.loads(out)["disks"]] == ["data"]


def test_a_disk_that_nobody_knows_is_a_usage_error_that_names_the_others(told: Callable[..., Told]) -> None:
    code, _, err = told("--disk", "nosuch")
    assert code == 2
    assert "known are: system" in err


def test_a_finer_map_is_asked_for_by_cells(told: Callable[..., Told]) -> None:
    assert told("--cells", "1024", cells=1024)[0] == 0
    assert told("--cells", "0")[0] == told("--cells", "999999")[0] == 2


def test_before_the_first_sample_it_says_so(told: Callable[..., Told]) -> None:
    code, out, _ = told(disks=())
    assert code == 0
    assert out == "nothing is known of its disks yet: 1 s in every 10 s are watched\n"


def test_why_a_vm_is_not_watched_is_said(told: Callable[..., Told]) -> None:
    _, out, _ = told(why="it does not run")
    assert out.splitlines()[0] == "web is not watched now: it does not run"


def test_a_disks_name_cannot_move_the_cursor(told: Callable[..., Told]) -> None:
    _, out, _ = told(disks=({**DISK, "name": "a\x1b[2Jb"},))
    assert "\x1b" not in out


def test_an_idle_disk_and_one_of_no_bytes_are_shown(told: Callable[..., Told]) -> None:
    idle = {**DISK, "cell_reads_per_s": [0.0] * 128, "cell_writes_per_s": [0.0] * 128, "reads_per_s": 0.0}
    empty = {**DISK, "size": 0, "cell_reads_per_s": [], "cell_writes_per_s": []}
    assert told(disks=(idle, empty))[0] == 0


@given(st.lists(st.floats(0, 1e300)))
def test_more_is_never_shown_lower_and_something_never_as_nothing(rates: list[float]) -> None:
    shown = levels(rates)
    assert all((level == 0) == (rate == 0) for level, rate in zip(shown, rates, strict=True))
    assert all(0 <= level < len(BLOCKS) for level in shown)
    by_rate = [level for _, level in sorted(zip(rates, shown, strict=True))]
    assert by_rate == sorted(by_rate)
