"""Measure a move of a running guest with its disk: by Korora, and by QEMU's own mirror into an NBD export.

Two guests of the same definition, each with a disk of random content, on the same two hosts of a lab. They
take turns: while one is measured the other stands still. The load (bench/storage_load.c) asks the disk for
all that it answers, so on a small machine guest and copying want the same CPUs; that is in every figure. With
--rate it asks for so many requests a second, as a guest does that has other work. The network between the
hosts is as fast as memory; with --link it is as fast as a real one. CPU seconds are the whole machine's, the
guest's among them.

idle         the rate of each guest before each of its moves, over 8 s.
korora-…     `korora migrate --disks all` in a storage mode: the whole command, from its start to its end.
nbd, nbd-tls `blockdev-mirror` to an NBD export, in the background, then QEMU's own migration of memory, both
             plain or both with TLS; from the order (its destination is started then) until the guest runs
             there and its source has ended. No other proof, evidence, attestation or receipt.
return       a disk that goes and comes back with --incremental, once every fiftieth MiB was written to.

A rate during a move counts the pause and everything else in it. Latencies are medians of each second's.
Run: script/bench storage --moves [--mib 1024] [--return-mib 4096] [--runs 3] [--modes A,B] [--load zones]
     [--rate N] [--link MBIT] [--json FILE]
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from bench import machine as this_machine
from bench.certificates import make_certificates
from bench.lab import accelerator, ended, say, two_hosts
from bench.storage_guest import Boot, definition, random_disk
from bench.storage_movers import ByKorora, ByQemu, Move

from korora.lab.layout import Layout

MODES: Final = ("auto", "mirror", "outsource")
LOADS: Final = ("zones", "flat", "sequential", "database")


class Report(msgspec.Struct, frozen=True):
    machine: this_machine.Machine
    load: str
    rate: int
    link_mbit: int
    disk_mib: int
    return_mib: int
    moves: list[Move]
    medians: dict[str, dict[str, float]]
    ratios: dict[str, float]


# -- the session -------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    asked = _arguments(arguments)
    return ended(lambda: _told(asked))


def _told(asked: argparse.Namespace) -> None:
    report = _session(asked)
    print(table(report))
    if asked.json:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")


def table(report: Report) -> str:
    titles = ("way", "total s", "until it leaves s", "IOPS idle", "IOPS moving", "p99 idle ms",
              "p99 moving ms", "MiB sent", "CPU s")  # fmt: skip
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for way, of in report.medians.items():
        sent = f"{of['bytes_sent'] / 2**20:.0f}" if "bytes_sent" in of else "–"
        lines.append(
            f"| {way} | {of['wall_s']:.1f} | {of['here_s']:.1f} "
            f"| {of['idle_iops']:.0f} | {of['moving_iops']:.0f} "
            f"| {of['idle_p99_ms']:.1f} | {of['moving_p99_ms']:.1f} | {sent} | {of['cpu_s']:.1f} |"
        )
    return "\n".join([*lines, " ".join(f"{name}={ratio}" for name, ratio in report.ratios.items())])


def _session(asked: argparse.Namespace) -> Report:
    moves: list[Move] = []
    with two_hosts(asked.link) as layout:
        with_ = accelerator(layout)
        description = this_machine.describe(with_)
        boot = Boot.made(layout.storage)
        if asked.runs:
            moves += _under_load(layout, boot, with_, asked)
        if asked.return_mib:
            moves += _return_trip(layout, boot, with_, asked.return_mib)
    medians = _medians(moves)
    description = msgspec.structs.replace(description, load_after=this_machine.load())
    return Report(
        description, asked.load, asked.rate, asked.link, asked.mib, asked.return_mib, moves, medians,
        _ratios(medians),
    )  # fmt: skip


def _under_load(layout: Layout, boot: Boot, accelerated: str, asked: argparse.Namespace) -> list[Move]:
    moves: list[Move] = []
    with ExitStack() as undo:
        ours = ByKorora(
            layout, "ours",
            definition(
                "ours", random_disk(layout.storage / "ours.raw", asked.mib), accelerated, boot,
                _load(asked),
            ),
        )  # fmt: skip
        undo.callback(ours.end)
        ours.console.wait_for_load()
        ours.hold()
        theirs = ByQemu(
            layout, layout.directory / "p", "theirs",
            lambda disk: definition("theirs", disk, accelerated, boot, _load(asked)),
            random_disk(layout.storage / "theirs.raw", asked.mib),
            make_certificates(layout.directory / "tls", layout.hosts(2)),
        )  # fmt: skip
        undo.callback(theirs.end)
        theirs.console.wait_for_load()
        theirs.hold()
        turns: list[tuple[Any, Callable[[int], Move]]] = [
            (theirs, partial(theirs.move, way="nbd", tls=False)),
            (theirs, partial(theirs.move, way="nbd-tls", tls=True)),
        ]
        for mode in asked.modes:
            words = ["--storage-mode", mode]
            turns.append((ours, partial(ours.move, way=f"korora-{mode}", words=words)))
        for number in range(1, asked.runs + 1):
            shift = number % len(turns)
            for side, move in turns[shift:] + turns[:shift]:
                side.go_on()
                moves.append(move(number))
                side.hold()
                say(f"{moves[-1]}")
    return moves


def _load(asked: argparse.Namespace) -> str:
    return f"load={asked.load}" + (f" rate={asked.rate}" if asked.rate else "")


def _return_trip(layout: Layout, boot: Boot, accelerated: str, mebibytes: int) -> list[Move]:
    """There with everything, back with what the guest wrote meanwhile."""
    disk = random_disk(layout.storage / "returns.raw", mebibytes)
    guest = ByKorora(layout, "returns", definition("returns", disk, accelerated, boot, "load=rare"))
    try:
        guest.console.wait_for_load()
        moves = [guest.move(1, way="first trip", words=["--incremental"])]
        guest.console.wait_for_writing()
        moves.append(guest.move(1, way="return trip", words=["--incremental"]))
    finally:
        guest.end()
    return moves


def _medians(moves: Sequence[Move]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for way in dict.fromkeys(move.way for move in moves):
        of = [move for move in moves if move.way == way]
        found[way] = {
            "wall_s": statistics.median(move.wall_s for move in of),
            "here_s": statistics.median(move.here_s for move in of),
            "idle_iops": statistics.median(move.idle.iops for move in of),
            "moving_iops": statistics.median(move.moving.iops for move in of),
            "idle_p99_ms": statistics.median(move.idle.p99_ms for move in of),
            "moving_p99_ms": statistics.median(move.moving.p99_ms for move in of),
            "cpu_s": statistics.median(move.cpu_s for move in of),
        }
        sent = [move.bytes_sent for move in of if move.bytes_sent is not None]
        if sent:
            found[way]["bytes_sent"] = statistics.median(sent)
    return found


def _ratios(medians: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Each way against the guest at rest, Korora's against QEMU's own; without a name, the default mode's."""
    ratios: dict[str, float] = {}
    for way, of in medians.items():
        name = "" if way == "korora-auto" else f", {way}"
        if of["idle_iops"]:
            ratios[f"iops_vs_idle{name}"] = of["moving_iops"] / of["idle_iops"]
            ratios[f"p99_vs_idle{name}"] = of["moving_p99_ms"] / of["idle_p99_ms"]
        if way.startswith("korora-"):
            if medians["nbd"]["moving_iops"]:  # else it was over before the guest said anything
                ratios[f"iops_vs_mirror{name}"] = of["moving_iops"] / medians["nbd"]["moving_iops"]
            ratios[f"time_vs_nbd{name}"] = of["wall_s"] / medians["nbd"]["wall_s"]
            ratios[f"cpu_vs_nbd{name}"] = of["cpu_s"] / medians["nbd"]["cpu_s"]
            ratios[f"time_vs_nbd_tls{name}"] = of["wall_s"] / medians["nbd-tls"]["wall_s"]
            for peer, called in (("nbd", "nbd"), ("nbd-tls", "nbd_tls")):
                if medians[peer]["here_s"]:
                    ratios[f"time_until_it_leaves_vs_{called}{name}"] = of["here_s"] / medians[peer]["here_s"]
    if "return trip" in medians:
        first, back = medians["first trip"], medians["return trip"]
        ratios["return_trip_bytes"] = back["bytes_sent"] / first["bytes_sent"]
        ratios["return_trip_time"] = back["wall_s"] / first["wall_s"]
    return {name: round(ratio, 3) for name, ratio in ratios.items()}


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    reader = argparse.ArgumentParser(prog="script/bench storage --moves")
    reader.add_argument("--mib", type=int, default=1024, help="of the disk under load (1024)")
    reader.add_argument("--return-mib", type=int, default=4096, help="of the disk that comes back (4096)")
    reader.add_argument("--runs", type=int, default=3, help="of each way under load (3)")
    reader.add_argument("--modes", type=_modes, default=MODES, help="of storage")
    reader.add_argument("--load", choices=LOADS, default=LOADS[0], help="of the guest")
    reader.add_argument(
        "--rate", type=int, default=0, help="requests a second that it asks for (as many as it gets)"
    )
    reader.add_argument("--link", type=int, default=0, help="Mbit/s of the network (as fast as memory is)")
    reader.add_argument("--json", type=Path)
    asked = reader.parse_args(arguments)
    if asked.mib < 64 or min(asked.runs, asked.return_mib, asked.rate, asked.link) < 0:
        reader.error("--mib is at least 64, the others are not negative")
    return asked


def _modes(text: str) -> tuple[str, ...]:
    found = tuple(text.split(","))
    if set(found) - set(MODES):
        raise argparse.ArgumentTypeError(f"modes are {', '.join(MODES)}")
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
