"""What follows from moves off slow storage: figures with their spread, ratios, goals. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
from bench import machine as this_machine
from bench.figures import Spread, spread
from bench.storage_movers import Move

PEER: Final = "qemu-shallow"
OUTSOURCED: Final = "korora-outsource"
UNWATCHED: Final = "korora-unwatched"
AUTO: Final = "korora-auto"
WAYS: Final = (PEER, "korora-mirror", OUTSOURCED, UNWATCHED, AUTO)
LOADS: Final = ("zones", "flat", "sequential", "database")


class Slow(msgspec.Struct, frozen=True):
    """One move from slow storage."""

    load: str
    move: Move
    reads_mib: dict[str, float]


class Report(msgspec.Struct, frozen=True):
    machine: this_machine.Machine
    disk_mib: int
    iops: int
    bytes_per_s: int
    moves: list[Slow]
    figures: dict[str, dict[str, Spread]]
    ratios: dict[str, float]
    goals: dict[str, bool]


def figures_of(moves: Sequence[Slow]) -> dict[str, dict[str, Spread]]:
    """Of each way and load: what the guest got, as a multiple of what it got idle just before."""
    found: dict[str, dict[str, Spread]] = {}
    for name in dict.fromkeys((one.load, one.move.way) for one in moves):
        of = [_figures(one) for one in moves if (one.load, one.move.way) == name]
        known = [figure for figure in of[0] if all(figure in one for one in of)]
        found[", ".join(name)] = {figure: spread(one[figure] for one in of) for figure in known}
    return found


def _figures(one: Slow) -> dict[str, float]:
    idle, here = one.move.idle, one.move.here or one.move.moving
    paused = {} if one.move.downtime_ms is None else {"downtime_s": one.move.downtime_ms / 1000}
    return paused | {
        "idle_iops": idle.iops,
        "iops": here.iops,
        "iops_vs_idle": here.iops / max(idle.iops, 1e-3),
        "read_p50_ms": here.read_p50_ms,
        "read_p99_ms": here.read_p99_ms,
        "write_p99_ms": here.write_p99_ms,
        "read_p99_vs_idle": here.read_p99_ms / max(idle.read_p99_ms, 1e-3),
        "write_p99_vs_idle": here.write_p99_ms / max(idle.write_p99_ms, 1e-3),
        "copied_s": one.move.here_s,
        "total_s": one.move.wall_s,
    }


def ratios_of(figures: Mapping[str, Mapping[str, Spread]]) -> dict[str, float]:
    """Without a name: outsourced, under a load with zones. A mirror is QEMU's own, shallow and uncapped."""
    ratios: dict[str, float] = {}
    for name, of in figures.items():
        load, way = name.split(", ")
        more = "" if (load, way) == (LOADS[0], OUTSOURCED) else f", {way}, {load}"
        ratios[f"iops_vs_idle{more}"] = of["iops_vs_idle"].median
        ratios[f"p99_vs_idle{more}"] = of["read_p99_vs_idle"].median
        ratios[f"write_p99_vs_idle{more}"] = of["write_p99_vs_idle"].median
        peer = figures.get(f"{load}, {PEER}")
        if peer is not None and way != PEER:
            ratios[f"iops_vs_mirror{more}"] = of["iops"].median / max(peer["iops"].median, 1e-3)
            ratios[f"time_vs_mirror{more}"] = of["copied_s"].median / peer["copied_s"].median
    for load in LOADS:  # what the schedule is worth to the guest (W6)
        watched, not_ = (figures.get(f"{load}, {way}") for way in (OUTSOURCED, UNWATCHED))
        if watched is not None and not_ is not None:
            ratios[f"iops_vs_sequential, {load}"] = watched["iops"].median / max(not_["iops"].median, 1e-3)
            ratios[f"read_p50_vs_sequential, {load}"] = watched["read_p50_ms"].median / max(
                not_["read_p50_ms"].median, 1e-3
            )
    return {name: round(ratio, 3) for name, ratio in ratios.items()}


def goals_of(ratios: Mapping[str, float]) -> dict[str, bool]:
    """Those that were measured."""
    flat = f"iops_vs_idle, {AUTO}, {LOADS[1]}"
    wanted: dict[str, Callable[[float], bool]] = {
        "iops_vs_idle": lambda ratio: ratio >= 1.5,
        "iops_vs_mirror": lambda ratio: ratio >= 4,
        "p99_vs_idle": lambda ratio: ratio <= 3,
        "write_p99_vs_idle": lambda ratio: ratio <= 1,
        flat: lambda ratio: ratio >= 0.9,
    }
    return {name: reached(ratios[name]) for name, reached in wanted.items() if name in ratios}


def table(report: Report) -> str:
    titles = ("load, way", "IOPS", "of idle", "read p50 ms", "read p99 ms", "of idle", "write p99 ms",
              "of idle", "copied s", "pause s", "total s")  # fmt: skip
    names = ("iops", "iops_vs_idle", "read_p50_ms", "read_p99_ms", "read_p99_vs_idle", "write_p99_ms",
             "write_p99_vs_idle", "copied_s", "downtime_s", "total_s")  # fmt: skip
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name, of in report.figures.items():
        lines.append(f"| {name} | {' | '.join(_shown(of.get(one)) for one in names)} |")
    ratios = " ".join(f"{name}={ratio}" for name, ratio in report.ratios.items())
    return "\n".join([*lines, ratios, str(report.goals)])


def _shown(spread: Spread | None) -> str:
    if spread is None:
        return "–"
    return f"{spread.median:.4g} ({spread.least:.4g}–{spread.most:.4g})"
