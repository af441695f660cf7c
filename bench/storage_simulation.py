"""Let a disk move in a simulation, in sequential order and in that of the schedule (W6), by the same traces.

The simulated disk has 4 GiB, in chunks of 1 MiB, all of them with data; the link carries 50 MiB a second. The
guest is watched for a minute, one second in ten, as the daemon does it; then the disk moves, as outsourcing
lets it: what the guest writes goes elsewhere, the disk itself is copied once, a chunk that was written before
its turn came is left for later, and in the end what was written is sent while further writes pass at once.
Both orders move alike; the order is the only difference.

  sent again     chunks that had crossed already when they were written
  remote reads   reads while it moves that the destination could not answer: not sent yet, or written since
  total          MiB that crossed;  turns: how often the source's disk had to move its head

`ratios`: schedule to sequential, means of the runs, in each of which the data lies elsewhere on the disk;
below 1 the schedule is better, null where sequential order had nothing to better.
Run: script/bench storage --simulate [--runs 20] [--json FILE]
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from bench import machine as this_machine
from bench.storage_workloads import CHUNKS, WATCHED_S, WORKLOADS, Floats, Ints, Trace, trace_of

from korora.agents.dataorg.popularity import Popularity
from korora.agents.dataorg.schedule import Run, order
from korora.ports.sampling import Requests

CHUNK_S: Final = 1 / 50
CHUNK_BYTES: Final = 1 << 20
EVERY_S: Final = 10.0
SAMPLE_S: Final = 1.0


class Moved(msgspec.Struct, frozen=True):
    """What one move was like."""

    sent_again: int
    remote_reads: int
    reads: int
    total_mib: int
    seconds: float
    turns: int


class Pair(msgspec.Struct, frozen=True):
    sequential: list[Moved]
    schedule: list[Moved]


class Report(msgspec.Struct, frozen=True):
    machine: this_machine.Machine
    runs: int
    workloads: dict[str, Pair]
    ratios: dict[str, dict[str, float | None]]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="script/bench storage --simulate")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    if asked.runs < 1:
        parser.error("--runs is at least 1")
    description = this_machine.describe()
    workloads = {name: _pair(name, asked.runs) for name in WORKLOADS}
    ratios = {name: _ratios(pair) for name, pair in workloads.items()}
    report = Report(description, asked.runs, workloads, ratios)
    print(table(report))
    if asked.json:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return 0


def table(report: Report) -> str:
    lines = [
        "| workload | order | sent again | remote reads | of | total MiB | s | turns |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, pair in report.workloads.items():
        for way, moves in (("sequential", pair.sequential), ("schedule", pair.schedule)):
            told = [
                f"{statistics.fmean(getattr(move, field) for move in moves):.0f}"
                for field in ("sent_again", "remote_reads", "reads", "total_mib", "seconds", "turns")
            ]
            lines.append(f"| {name} | {way} | " + " | ".join(told) + " |")
    return "\n".join(lines)


def watched(trace: Trace) -> Popularity:
    """What the daemon knows when the move begins."""
    known = Popularity(CHUNKS * CHUNK_BYTES)
    for begins in np.arange(0.0, WATCHED_S, EVERY_S):
        seen = (trace.at >= begins) & (trace.at < begins + SAMPLE_S)
        reads, writes = (_requests(trace.chunk[seen & (trace.written == kind)]) for kind in (False, True))
        known.add(begins + SAMPLE_S, SAMPLE_S, reads, writes)
    return known


def move(trace: Trace, known: Popularity | None) -> Moved:
    """One move that begins when the guest was watched; in sequential order if nothing is known."""
    first_write = _first_writes(trace)
    chunks, turns = _ordered(np.arange(CHUNKS), known, CHUNKS * CHUNK_S)
    # Whoever is left for later lets those behind it go earlier, which may let them go unwritten: in turn.
    times, copied, now = [], [], WATCHED_S
    for chunk in chunks.tolist():
        if first_write[chunk] >= now:
            times.append(now)
            copied.append(chunk)
            now += CHUNK_S
    first = (np.array(times), np.array(copied, np.int64))
    written = np.flatnonzero(first_write < now)
    left, turns_left = _ordered(written, known, 0.0)
    last = (np.linspace(now, now + len(left) * CHUNK_S, len(left), endpoint=False), left)
    ends = now + len(left) * CHUNK_S
    remote, reads = _remote_reads(trace, first, last, ends)
    return Moved(
        sent_again=len(copied) + len(left) - CHUNKS,
        remote_reads=remote,
        reads=reads,
        total_mib=len(copied) + len(left),
        seconds=round(ends - WATCHED_S, 1),
        turns=turns + turns_left,
    )


def _pair(name: str, runs: int) -> Pair:
    traces = [trace_of(name, seed) for seed in range(1, runs + 1)]
    return Pair([move(trace, None) for trace in traces], [move(trace, watched(trace)) for trace in traces])


def _ratios(pair: Pair) -> dict[str, float | None]:
    def ratio(field: str) -> float | None:
        ours, theirs = (
            statistics.fmean(getattr(one, field) for one in moves)
            for moves in (pair.schedule, pair.sequential)
        )
        return round(ours / theirs, 3) if theirs else None

    return {
        "sent_again": ratio("sent_again"),
        "remote_reads": ratio("remote_reads"),
        "bytes": ratio("total_mib"),
    }


def _requests(chunks: Ints) -> Requests:
    return np.column_stack((chunks * CHUNK_BYTES, np.full(len(chunks), 4096)))


def _ordered(wanted: Ints, known: Popularity | None, move_s: float) -> tuple[Ints, int]:
    runs = list(order(CHUNKS, _as_runs(wanted), known, move_s=move_s))
    chunks = [np.arange(run.first, run.end) for run in runs]
    turns = sum(after.first != before.end for before, after in pairwise(runs))
    return np.concatenate(chunks) if chunks else wanted, turns


def _as_runs(chunks: Ints) -> Iterable[Run]:
    for part in np.split(chunks, np.flatnonzero(np.diff(chunks) != 1) + 1):
        if len(part):
            yield Run(int(part[0]), len(part))


def _first_writes(trace: Trace) -> Floats:
    """Of each chunk, since the move began."""
    first = np.full(CHUNKS, np.inf)
    during = trace.written & (trace.at >= WATCHED_S)
    np.minimum.at(first, trace.chunk[during], trace.at[during])
    return first


def _remote_reads(
    trace: Trace, first: tuple[Floats, Ints], last: tuple[Floats, Ints], until: float
) -> tuple[int, int]:
    """How many reads found no copy that holds: the last thing that befell their chunk was no sending."""
    passes = np.full(CHUNKS, np.inf)
    passes[last[1]] = last[0]
    during = (trace.at >= WATCHED_S) & (trace.at < until)
    during &= ~(trace.written & (trace.at >= passes[trace.chunk]))
    at = np.concatenate((first[0], last[0], trace.at[during]))
    chunk = np.concatenate((first[1], last[1], trace.chunk[during]))
    sends = len(first[1]) + len(last[1])
    kind = np.concatenate((np.zeros(sends, int), np.where(trace.written[during], 1, 2)))
    sorting = np.lexsort((kind, at, chunk))
    chunk, kind = chunk[sorting], kind[sorting]
    position = np.arange(len(chunk))
    begins = np.maximum.accumulate(np.where(np.diff(chunk, prepend=-1) != 0, position, 0))
    befell = np.maximum.accumulate(np.where(kind < 2, position, -1))
    holds = (befell >= begins) & (kind[np.maximum(befell, 0)] == 0)
    reads = kind == 2
    return int((reads & ~holds).sum()), int(reads.sum())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
