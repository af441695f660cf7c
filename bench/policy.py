"""Measure how long the state machine of the policy takes for one answer, and how that grows.

The machine's own answer alone: no log, no signature, no daemon; and the whole decision of a host, with Cedar
and the log, in a folder on a disk. Requests are made before they are timed; each
is timed by itself, in wall-clock time, the clock's own cost (some 0.1 µs) included. Before anything is timed,
what was built is put aside for the garbage collector (`gc.freeze`), as a daemon can once its log is replayed,
and so are the requests, which a daemon never has all at once. The collector itself stays on: `not_frozen` and
the kind "create, put aside each thousand" show what it does.
Run: script/bench policy [--runs 5] [--json FILE] [--plot FILE] [--folder FOLDER] [--quick]
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec
from bench import machine as this_machine
from bench.plot import log_chart
from bench.policy_world import Asked, Size, World
from bench.whole_decision import Host

from korora.policy.machine.omega.rules import RULES
from korora.policy.machine.running.machine import Answer, Machine

FULL: Final = Size(10_000, 100_000, 1_000_000, 1_500, 10_000)
QUICK: Final = Size(20, 1_000, 2_000, 20, 50)
GROWTH: Final = (100, 1_000, 10_000, 100_000, 1_000_000)
QUICK_GROWTH: Final = (100, 1_000)
EACH: Final = 20_000
GOAL_MEDIAN_US: Final = 20.0
GOAL_P999_US: Final = 2000.0
GOAL_WHOLE_US: Final = 2000.0
ON_DISK: Final = Path("/var/tmp")  # noqa: S108  a folder with a new name is made in it
DRAWN: Final = ("get", "give", "create", "delete", "transfer")


class Latency(msgspec.Struct, frozen=True):
    """Of one kind of request, in microseconds; medians of the runs, `max` the largest of all."""

    asked: int
    median: float
    p99: float
    p999: float
    max: float
    interrupted: int = 0  # how often something else took the processor meanwhile


class Grown(msgspec.Struct, frozen=True):
    subjects: int
    objects: int
    entries: int
    built_s: float
    memory_mib: float
    kinds: dict[str, Latency]


class Report(msgspec.Struct, frozen=True):
    machine: this_machine.Machine
    size: dict[str, int]
    runs: int
    goals: dict[str, bool]
    kinds: dict[str, Latency]
    whole: dict[str, Latency]
    not_frozen: dict[str, Latency]
    growth: list[Grown]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="script/bench policy")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="a picture of the growth, as SVG")
    parser.add_argument("--folder", type=Path, default=ON_DISK, help=f"for the log, on a disk ({ON_DISK})")
    parser.add_argument("--quick", action="store_true", help="a small installation, a few requests")
    asked = parser.parse_args(arguments)
    if asked.runs < 1:
        parser.error("--runs is at least 1")
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        report = measured(asked.runs, asked.quick, Path(folder))
    print(table(report.kinds), table(report.whole), growth_table(report.growth), sep="\n\n", end="\n\n")
    print("before anything was put aside:", table(report.not_frozen), sep="\n", end="\n\n")
    print(
        "goals:", ", ".join(f"{name} {'reached' if met else 'MISSED'}" for name, met in report.goals.items())
    )
    if asked.json:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    if asked.plot:
        asked.plot.write_text(plot(report.growth))
    return 0


def measured(runs: int, quick: bool, folder: Path) -> Report:
    """`folder`: empty, for the log of the whole decisions."""
    description = this_machine.describe()
    size, each = (QUICK, 50) if quick else (FULL, EACH)
    growth = [grown(objects, each) for objects in (QUICK_GROWTH if quick else GROWTH)]
    world, running = built(size, 2 * runs)
    not_frozen = _merged([dict(_not_frozen(world, running, each))])
    _put_aside()
    shares = [range(run * size.migrations, (run + 1) * size.migrations) for run in range(2 * runs)]
    kinds = _merged([dict(_kinds(world, running, each, share, tails=True)) for share in shares[:runs]])
    whole = _merged([dict(one) for one in _whole(world, running, shares[runs:], folder)])
    goals = {
        f"median ≤ {GOAL_MEDIAN_US:.0f} µs": all(kind.median <= GOAL_MEDIAN_US for kind in _single(kinds)),
        f"p99.9 ≤ {GOAL_P999_US:.0f} µs": all(kind.p999 <= GOAL_P999_US for kind in _single(kinds)),
        f"whole decision: median ≤ {GOAL_WHOLE_US:.0f} µs": whole["whole decision"].median <= GOAL_WHOLE_US,
    }
    described = msgspec.structs.replace(description, load_after=this_machine.load())
    sizes = msgspec.to_builtins(_as_dict(size))
    return Report(described, sizes, runs, goals, kinds, whole, not_frozen, growth)


def built(size: Size, runs: int) -> tuple[World, Machine]:
    """With migrations for each of the runs."""
    world = World(Size(size.subjects, size.objects, size.entries, size.migrations * runs, size.wide))
    return world, Machine(RULES, world.state)


def grown(objects: int, each: int) -> Grown:
    began = time.perf_counter()
    size = Size(
        max(10, objects // 10), objects, min(10 * objects, FULL.entries), 500, min(100, objects // 10)
    )
    world, running = built(size, 1)
    seconds = time.perf_counter() - began
    _put_aside()
    fewer = min(each, size.subjects * objects) // 4  # there are no more rights to give than that
    kinds = _merged([dict(_kinds(world, running, fewer, range(size.migrations)))])
    gc.unfreeze()
    return Grown(size.subjects, objects, size.entries, round(seconds, 1), _memory_mib(), kinds)


def _put_aside() -> None:
    gc.collect()
    gc.freeze()


# -- what is timed -----------------------------------------------------------------------------------------

Timed = tuple[list[int], int]
"""Nanoseconds of each request, and how often this process was interrupted."""


def _kinds(
    world: World, running: Machine, each: int, migrations: range, *, tails: bool = False
) -> Iterator[tuple[str, Timed]]:
    """Every kind in turn. What is given, created or opened is taken back: each run finds the same state."""
    some = list(islice(world.readable(), each))
    yield "get", _timed(running, some)
    yield "release-access", _timed(running, [("release-access", dict(given)) for _, given in some])
    yield "get (no)", _timed(running, islice(world.unreadable(), each), Answer.NO)
    some = list(islice(world.gives(), each))
    yield "give", _timed(running, some)
    yield "rescind", _timed(running, [("rescind", dict(given)) for _, given in some])
    some = list(islice(world.creates(), each))
    yield "create", _timed(running, some)
    yield "delete", _timed(running, _deletes(some))
    yield "write", _timed(running, islice(world.writes(), each))
    yield "authenticate", _timed(running, islice(world.authentications(), each))
    for name, asked in (("submit", world.submits(migrations)), ("transfer", world.transfers(migrations))):
        if migrations:
            alone, whole = _procedures(running, asked)
            yield name, alone
            yield f"{name} with its gets and releases", whole
    yield "question", _timed(running, [("teleport", dict(given)) for _, given in some], Answer.QUESTION)
    yield "error", _timed(running, [("get", dict(given)) for _, given in some], Answer.ERROR)
    if tails:
        yield from _tails(world, running, each)


def _tails(world: World, running: Machine, each: int) -> Iterator[tuple[str, Timed]]:
    """An object that everybody may open, one with many children, a subject that has much open."""
    some = list(world.populars())
    yield "give, to everybody", _timed(running, some)
    yield "delete of what everybody may open (no)", _timed(running, _deletes(some[:1]) * 100, Answer.NO)
    yield "rescind, from everybody", _timed(running, [("rescind", dict(given)) for _, given in some])
    some = list(islice(world.children(), each))
    yield "create, below one of many children", _timed(running, some)
    yield "delete, below one of many children", _timed(running, _deletes(some))
    some = list(islice(world.creates(), each))
    yield "create, put aside each thousand", _in_parts(running, some, 1000)
    _timed(running, _deletes(some))
    opened = list(world.openings())
    yield "get, by one subject of everything", _timed(running, opened)
    yield "release-access, by it", _timed(running, [("release-access", dict(given)) for _, given in opened])


def _not_frozen(world: World, running: Machine, each: int) -> Iterator[tuple[str, Timed]]:
    """As it is while everything is the collector's to go through."""
    some = list(islice(world.creates(), each))
    yield "create", _timed(running, some, freeze=False)
    yield "delete", _timed(running, _deletes(some), freeze=False)


def _whole(
    world: World, running: Machine, shares: Sequence[range], folder: Path
) -> Iterator[Iterator[tuple[str, Timed]]]:
    host = Host(folder, running)
    for share in shares:
        timed = host.timed(list(world.submits(share)))
        yield ((name, (took, 0)) for name, took in timed)
    host.close()


def _deletes(created: Sequence[Asked]) -> list[Asked]:
    return [("delete", {"u": given["u"], "o": given["o"]}) for _, given in created]


def _in_parts(running: Machine, asked: Sequence[Asked], each: int) -> Timed:
    parts = [_timed(running, asked[at : at + each]) for at in range(0, len(asked), each)]
    return [took for part, _ in parts for took in part], sum(interrupted for _, interrupted in parts)


def _timed(
    running: Machine, asked: Iterable[Asked], expected: Answer = Answer.YES, *, freeze: bool = True
) -> Timed:
    clock, decide, took = time.perf_counter_ns, running.decide, []
    requests, before = list(asked), _interruptions()
    if freeze:
        gc.freeze()
    for request, given in requests:
        began = clock()
        decision = decide(request, given)
        took.append(clock() - began)
        if decision.answer is not expected:
            raise AssertionError(f"{decision} is not {expected}")
    return took, _interruptions() - before


def _procedures(running: Machine, asked: Iterable[list[Asked]]) -> tuple[Timed, Timed]:
    """The procedure alone; and with the gets before it and the releases after it."""
    alone: list[int] = []
    whole: list[int] = []
    before = _interruptions()
    for requests in list(asked):
        took, _ = _timed(running, requests)
        alone.append(took[len(requests) // 2])
        whole.append(sum(took))
    interrupted = _interruptions() - before
    return (alone, interrupted), (whole, interrupted)


def _interruptions() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _memory_mib() -> float:
    """Resident now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 2**20, 1)


# -- what is told ------------------------------------------------------------------------------------------


def _merged(runs: Sequence[dict[str, Timed]]) -> dict[str, Latency]:
    return {name: _latency([run[name] for run in runs]) for name in runs[0]}


def _latency(runs: Sequence[Timed]) -> Latency:
    ordered = [sorted(took) for took, _ in runs]
    return Latency(
        asked=sum(map(len, ordered)),
        median=_median_us(took[len(took) // 2] for took in ordered),
        p99=_median_us(took[int(len(took) * 0.99)] for took in ordered),
        p999=_median_us(took[int(len(took) * 0.999)] for took in ordered),
        max=round(max(took[-1] for took in ordered) / 1000, 1),
        interrupted=sum(interrupted for _, interrupted in runs),
    )


def _median_us(of: Iterable[int]) -> float:
    return round(statistics.median(of) / 1000, 1)


def _single(kinds: dict[str, Latency]) -> list[Latency]:
    """Those that are one request."""
    return [kind for name, kind in kinds.items() if "with its gets" not in name]


def _as_dict(size: Size) -> dict[str, int]:
    return {name: getattr(size, name) for name in Size.__dataclass_fields__}


def table(kinds: dict[str, Latency]) -> str:
    lines = ["| request | median µs | p99 | p99.9 | max | asked |", "| --- | --- | --- | --- | --- | --- |"]
    for name, kind in kinds.items():
        lines.append(f"| {name} | {kind.median} | {kind.p99} | {kind.p999} | {kind.max} | {kind.asked:,} |")
    return "\n".join(lines)


def growth_table(growth: Sequence[Grown]) -> str:
    """Medians, and p99 after the stroke."""
    names = list(growth[0].kinds)
    head = ["objects", "matrix", "built s", "MiB", *(name for name in names if name in DRAWN)]
    lines = [_row(head), _row(["---"] * len(head))]
    for one in growth:
        cells = [f"{one.objects:,}", f"{one.entries:,}", f"{one.built_s}", f"{one.memory_mib:.0f}"]
        cells += [f"{one.kinds[name].median} / {one.kinds[name].p99}" for name in names if name in DRAWN]
        lines.append(_row(cells))
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def plot(growth: Sequence[Grown]) -> str:
    series: dict[str, list[tuple[float, float]]] = {}
    for name in DRAWN:
        series[name] = [(one.objects, one.kinds[name].median) for one in growth]
    for name in DRAWN:
        series[f"{name}, p99"] = [(one.objects, one.kinds[name].p99) for one in growth]
    return log_chart("One answer of the policy machine: median and p99", "objects", "µs", series)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
