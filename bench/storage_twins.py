"""Measure what the second VM of a distribution costs once the first has come: bytes on the wire, and time.

Two VMs of one tenant, each with the disk of a Debian system (bench/distributions.py), move to the same host,
one after the other, as a user would move them; the host learns the first one's disk in between. Each way of
making such disks in turn; before each run the host forgets what it knows. Both VMs run, and ask nothing of
their disks. The bytes are of the whole move, with memory and names.
Run: script/bench storage --twins [--runs 3] [--json FILE] [--folder FOLDER] [--quick]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec
from bench import distributions
from bench import machine as this_machine
from bench.lab import accelerator, ended, say, two_hosts
from bench.storage_guest import definition

from korora.adapters.store.store import FolderStore
from korora.client import Daemon
from korora.errors import ToolError
from korora.lab.layout import Layout
from korora.lab.lifecycle import korora_command
from korora.model.store_settings import NAME, StoreSettings
from korora.model.stored import Scope, TenantName

ON_DISK: Final = Path("/var/tmp")  # noqa: S108  a folder with a new name is made in it
SCOPE: Final = Scope(TenantName("twins"))  # whose the lab's VMs of this name are
GOALS: Final = {"second_vm_bytes": 0.4}
_LEARNS_WITHIN_S: Final = 600.0
_LOOKS_EVERY_S: Final = 2.0


class Move(msgspec.Struct, frozen=True):
    """`asked`: in the mode that asks the destination (auto), or one that does not (mirror)."""

    disks: str
    which: str
    number: int
    wall_s: float
    bytes_sent: int


class Report(msgspec.Struct, frozen=True):
    machine: this_machine.Machine
    made_of: str
    moves: list[Move]
    medians: dict[str, dict[str, float]]
    ratios: dict[str, float]
    goals: dict[str, bool]


def main(arguments: Sequence[str]) -> int:
    reader = argparse.ArgumentParser(prog="script/bench storage --twins")
    reader.add_argument("--runs", type=int, default=3)
    reader.add_argument("--json", type=Path)
    reader.add_argument("--folder", type=Path, default=ON_DISK, help=f"for the images ({ON_DISK})")
    reader.add_argument("--quick", action="store_true", help="small disks: does it work at all?")
    asked = reader.parse_args(arguments)
    if asked.runs < 1:
        reader.error("--runs is more than nothing")
    return ended(lambda: _told(asked))


def _told(asked: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        report = _session(Path(folder), asked)
    print(table(report))
    if asked.json:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")


def table(report: Report) -> str:
    lines = [report.made_of, "", "| disks | VM | MiB sent | s |", "| --- | --- | --- | --- |"]
    for called, of in report.medians.items():
        lines.append(f"| {called} | {of['bytes_sent'] / 2**20:.1f} | {of['wall_s']:.2f} |")
    return "\n".join([*lines, *(f"{name}={ratio}" for name, ratio in report.ratios.items())])


def _session(folder: Path, asked: argparse.Namespace) -> Report:
    moves: list[Move] = []
    with two_hosts() as layout:
        with_ = accelerator(layout)
        description = this_machine.describe(with_)
        pairs, made_of = distributions.pairs(folder, small=asked.quick)
        for number in range(1, asked.runs + 1):
            for which, pair in enumerate(pairs):
                moves += _twins(layout, with_, pair, number, f"{number}-{which}")
    medians = {
        f"{disks} | {which}": _median([one for one in moves if (one.disks, one.which) == (disks, which)])
        for disks, which in dict.fromkeys((one.disks, one.which) for one in moves)
    }
    ratios = _ratios(medians)
    description = msgspec.structs.replace(description, load_after=this_machine.load())
    goals = {name: ratios[name] <= goal for name, goal in GOALS.items()}
    return Report(description, made_of, moves, medians, ratios, goals)


def _twins(layout: Layout, accelerated: str, pair: distributions.Pair, number: int, apart: str) -> list[Move]:
    """The first, the second, and the second again as if nobody asked."""
    store = layout.host("b").state / NAME
    _forget(store)
    moves = []
    for which, disk, words in (
        ("first", pair.first, ()),
        ("second", pair.second, ()),
        ("second, mirrored", pair.second, ("--storage-mode", "mirror")),
    ):
        name = f"twin-{which.replace(', ', '-')}-{apart}"
        copy = layout.storage / f"{name}.raw"
        subprocess.run(["cp", "--sparse=always", disk, copy], check=True)
        with Daemon(layout.host("a").api, "a") as daemon:
            daemon.define(definition(name, copy, accelerated, None), start=True)
        moves.append(_moved(layout, name, pair.called, which, number, words))
        say(f"{moves[-1]}")
        there = layout.host("b").state / "vms" / name / "disks" / "system.raw"
        subprocess.run(["cmp", "-n", str(disk.stat().st_size), there, disk], check=True)
        if which == "first":
            _wait_until_learnt(store)
        else:
            _remove(layout, name)
    _remove(layout, f"twin-first-{apart}")
    return moves


def _moved(layout: Layout, name: str, disks: str, which: str, number: int, words: Sequence[str]) -> Move:
    order = ["migrate", name, "--to", "b", "--disks", "all", *words, "--json"]
    command = [*korora_command(), "--config", str(layout.configuration), *order]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall_s = time.monotonic() - began
    lines = done.stdout.strip().splitlines()
    if done.returncode:
        raise ToolError(f"{name} did not move: {lines[-1:]} {done.stderr[-500:]}", kind="bench-korora")
    return Move(disks, which, number, round(wall_s, 2), json.loads(lines[-1])["bytes_sent"])


def _remove(layout: Layout, name: str) -> None:
    with Daemon(layout.host("b").api, "b") as daemon:
        daemon.stop(name, force=True)
    shutil.rmtree(layout.host("b").state / "vms" / name / "disks")


def _wait_until_learnt(store: Path) -> None:
    """Until no more parts are added."""
    limit, before = time.monotonic() + _LEARNS_WITHIN_S, -1
    while time.monotonic() < limit:
        if store.is_dir():
            with closing(FolderStore(store, StoreSettings(store).bounds)) as there:
                known = sum(origin.entries for origin in there.origins(SCOPE))
            if known and known == before:
                return
            before = known
        time.sleep(_LOOKS_EVERY_S)
    raise ToolError("the destination learns nothing of the first one's disk", kind="bench-korora")


def _forget(store: Path) -> None:
    if store.is_dir():
        with closing(FolderStore(store, StoreSettings(store).bounds)) as there:
            for origin in there.origins(SCOPE):
                there.forget(SCOPE, origin.number)


def _median(moves: Sequence[Move]) -> dict[str, float]:
    return {
        "wall_s": statistics.median(one.wall_s for one in moves),
        "bytes_sent": statistics.median(one.bytes_sent for one in moves),
    }


def _ratios(medians: dict[str, dict[str, float]]) -> dict[str, float]:
    """Of the pair that did worst; time against the same disk when nobody asks."""
    found: dict[str, float] = {}
    for disks in dict.fromkeys(called.split(" | ")[0] for called in medians):
        first, second, mirrored = (
            medians[f"{disks} | {which}"] for which in ("first", "second", "second, mirrored")
        )
        own = {
            "second_vm_bytes": second["bytes_sent"] / first["bytes_sent"],
            "second_vm_bytes_vs_mirror": second["bytes_sent"] / mirrored["bytes_sent"],
            "second_vm_time_vs_mirror": second["wall_s"] / mirrored["wall_s"],
        }
        found = {name: round(max(value, found.get(name, 0.0)), 3) for name, value in own.items()}
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
