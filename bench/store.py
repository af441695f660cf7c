"""Measure the content store: what the second VM of a distribution still costs, and how fast it answers.

The second disk crosses in memory, by the messages of docs/protocol/deduplication.md and with the store of
`korora store add`: bytes of parts that are sent, and of messages, over those of units that are not zero.
Beside it, what parts of other lengths would give, each alone. Rates are of one thread, with files in memory.
Run: script/bench store [--runs 3] [--json FILE] [--folder FOLDER] [--quick]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec
from bench import distributions
from bench import machine as this_machine
from bench.crossing import Crossing, FileDisk, chunks
from blake3 import blake3

from korora.adapters.store.store import FolderStore
from korora.model.stored import Bounds, Located, Scope, TenantName
from korora.protocol.dedup.names import UNIT_BYTES, is_zero, name_of, units
from korora.wiring import content_store

MIB: Final = 1 << 20
ON_DISK: Final = Path("/var/tmp")  # noqa: S108  a folder with a new name is made in it
TENANT: Final = TenantName("bench")
GRAINS: Final = (1 << 20, 1 << 18, 1 << 16, 1 << 14, 1 << 12)
GOALS: Final = {"second_vm_bytes": 0.4}
BOUNDS: Final = Bounds(1 << 40, 1 << 30)
ENTRIES: Final = 2_000_000


class Crossed(msgspec.Struct, frozen=True):
    """One second disk. Bytes."""

    not_zero: int
    sent: int
    said: int
    seconds: float
    would_be_sent: dict[int, float]

    @property
    def share(self) -> float:
        return round((self.sent + self.said) / self.not_zero, 4)


class Report(msgspec.Struct, frozen=True):
    machine: this_machine.Machine
    runs: int
    made_of: str
    crossed: dict[str, Crossed]
    rates: dict[str, float]
    index_bytes_per_entry: float
    memory_mib: dict[str, float]
    ratios: dict[str, float]
    goals: dict[str, bool]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="script/bench store")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, default=ON_DISK, help=f"for the images ({ON_DISK})")
    parser.add_argument("--quick", action="store_true", help="small disks, one run: does it work at all?")
    parser.add_argument("--entries-in", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--entries", type=int, default=0, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.entries_in:
        print(msgspec.json.encode(filled(asked.entries_in, asked.entries)).decode())
        return 0
    if asked.runs < 1:
        parser.error("--runs is more than nothing")
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        report = measured(Path(folder), 1 if asked.quick else asked.runs, small=asked.quick)
    print(told(report))
    if asked.json:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return 0


def measured(folder: Path, runs: int, *, small: bool) -> Report:
    description = this_machine.describe()
    pairs, made_of = distributions.pairs(folder, small=small)
    second = {pair.called: crossed(folder / "store", number, pair) for number, pair in enumerate(pairs)}
    rates = _rates(folder / "rates", pairs[0].first, runs)
    entries = 50_000 if small else ENTRIES
    memory = _in_a_process_of_its_own(folder / "filled", entries)
    ratios = {"second_vm_bytes": max(one.share for one in second.values())}
    return Report(
        machine=msgspec.structs.replace(description, load_after=this_machine.load()),
        runs=runs,
        made_of=made_of,
        crossed=second,
        rates=rates,
        index_bytes_per_entry=memory.pop("index_bytes_per_entry"),
        memory_mib=memory,
        ratios=ratios,
        goals={name: ratios[name] <= goal for name, goal in GOALS.items()},
    )


# -- the second disk crosses -------------------------------------------------------------------------------


def crossed(folder: Path, number: int, pair: distributions.Pair) -> Crossed:
    tenant = TenantName(f"{TENANT}-{number}")
    with closing(FolderStore(folder, BOUNDS)) as store:
        content_store.refer(store, Scope(tenant), pair.first, _untold)
        arrived = folder / "arrived.img"
        with store.pins(tenant, 256 * MIB) as pins, arrived.open("w+b") as file:
            crossing = Crossing(pair.second, FileDisk(file.fileno()))
            began = time.perf_counter()
            crossing.move(pins)
            seconds = time.perf_counter() - began
        subprocess.run(["cmp", arrived, pair.second], check=True)
    would = {grain: _sent_alone(pair, grain) for grain in GRAINS}
    return Crossed(_units_of(pair.second), crossing.sent, crossing.said, round(seconds, 2), would)


def _units_of(disk: Path) -> int:
    return sum(UNIT_BYTES for _, chunk in chunks(disk) for _, name in units(chunk) if name is not None)


def _sent_alone(pair: distributions.Pair, grain: int) -> float:
    """Of the bytes that are not zero in that grain, those that must be sent once; names left out."""

    def names(disk: Path) -> Iterator[bytes]:
        for _, chunk in chunks(disk):
            for at in range(0, len(chunk), grain):
                if not is_zero(chunk[at : at + grain]):
                    yield blake3(chunk[at : at + grain]).digest()

    there = set(names(pair.first))
    all_of_it = list(names(pair.second))
    return round(len(set(all_of_it) - there) / len(all_of_it), 4)


# -- rates -------------------------------------------------------------------------------------------------


def _rates(folder: Path, disk: Path, runs: int) -> dict[str, float]:
    """Medians: MiB of content, or thousands of names, in a second."""
    found: dict[str, list[float]] = {}
    whole = [chunk for _, chunk in chunks(disk)]
    for number in range(runs):
        with closing(FolderStore(folder / str(number), BOUNDS)) as store:
            for name, amount, work in _works(store, disk, whole):
                began = time.perf_counter()
                work()
                found.setdefault(name, []).append(amount / (time.perf_counter() - began))
    return {name: round(statistics.median(of), 1) for name, of in found.items()}


def _works(
    store: FolderStore, disk: Path, whole: list[bytes]
) -> Iterator[tuple[str, float, Callable[[], object]]]:
    """What is timed, in this order, with how much it goes through."""
    scope = Scope(TENANT)
    small = list(dict.fromkeys(name for chunk in whole for _, name in units(chunk) if name is not None))
    large = list(dict.fromkeys(map(name_of, whole)))
    strange = [os.urandom(32) for _ in range(min(len(small), 100_000))]
    mib = len(small) * UNIT_BYTES / MIB
    yield "added by reference, MiB/s", len(whole), lambda: content_store.refer(store, scope, disk, _untold)
    yield "chunks found and verified, MiB/s", len(large), lambda: _pinned(store, large, 16, expected=True)
    yield "units found and verified, MiB/s", mib, lambda: _pinned(store, small, 4096, expected=True)
    count = len(strange) / 1000
    yield "names not found, thousands/s", count, lambda: _pinned(store, strange, 4096, expected=False)
    yield "all verified, MiB/s", mib + len(whole), lambda: store.verify(scope)
    yield "kept, MiB/s", len(whole), lambda: store.keep(scope, Path("kept"), whole)


def _untold(_: object) -> None: ...


def _pinned(store: FolderStore, names: list[bytes], at_once: int, *, expected: bool) -> None:
    with store.pins(TENANT, 256 * MIB) as pins:
        for at in range(0, len(names), at_once):
            some = names[at : at + at_once]
            assert set(pins.pin(some)) == {expected}
            pins.release(some)


# -- memory ------------------------------------------------------------------------------------------------


def filled(folder: Path, entries: int) -> dict[str, float]:
    """An index of so many made-up entries, asked at random: what this process holds more than before."""
    folder.mkdir()
    disk = folder / "disk"
    disk.write_bytes(b"")
    before = _resident_mib()
    with closing(FolderStore(folder / "store", BOUNDS)) as store:
        made = (Located(at * UNIT_BYTES, UNIT_BYTES, os.urandom(32)) for at in range(entries))
        store.refer(Scope(TENANT), disk, made)
        written = _resident_mib()
        _pinned(store, [os.urandom(32) for _ in range(100_000)], 4096, expected=False)
        asked = _resident_mib()
        store.collect(Scope(TENANT))
        [stat] = store.stat()
        return {
            "entries": float(entries),
            "after they were written": round(written - before, 1),
            "after 100,000 questions": round(asked - before, 1),
            "index_bytes_per_entry": round(stat.index_size / stat.entries, 1),
        }


def _in_a_process_of_its_own(folder: Path, entries: int) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.store", "--entries-in", str(folder), "--entries", str(entries)]
    done = subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[1])
    return msgspec.json.decode(done.stdout, type=dict[str, float])


def _resident_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def told(report: Report) -> str:
    lines = [
        report.made_of,
        "",
        "| second disk | MiB not zero | sent MiB | messages MiB | of its bytes | s |",
    ]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    lines += [
        f"| {name} | {one.not_zero / MIB:.0f} | {one.sent / MIB:.1f} | {one.said / MIB:.2f}"
        f" | {one.share} | {one.seconds} |"
        for name, one in report.crossed.items()
    ]
    lines += ["", "| by parts of one length alone | " + " | ".join(report.crossed) + " |"]
    lines.append("| --- " * (1 + len(report.crossed)) + "|")
    for grain in GRAINS:
        cells = " | ".join(str(one.would_be_sent[grain]) for one in report.crossed.values())
        lines.append(f"| {grain >> 10} KiB | {cells} |")
    lines += ["", *(f"{name}: {rate}" for name, rate in report.rates.items())]
    lines.append(f"index: {report.index_bytes_per_entry} bytes an entry")
    lines += [f"memory, {name}: {value}" for name, value in report.memory_mib.items()]
    for name, ratio in report.ratios.items():
        lines.append(f"{name}={ratio} (goal {GOALS[name]}: {'reached' if report.goals[name] else 'MISSED'})")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
