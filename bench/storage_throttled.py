"""Measure a move of a running guest whose disk lies on slow storage, and what the guest gets meanwhile.

Each move is a VM of its own: a raw disk of random content in a folder that is throttled for all who read and
write it (bench/throttled_folder.py), supervised and moved by Korora's daemons. Its destination, and the
replacement device (the VM's folder at the source), lie on storage that is not throttled. The load
(bench/storage_load.c) is eight requests at a time, as fast as the disk answers: `zones`, of 4 KiB, seven
reads to three writes, 90 % of them to a tenth of the disk; `flat`, the same evenly over all of it;
`sequential`; `database`. In turns:

qemu-shallow      QEMU's own `blockdev-mirror` to a plain NBD export, 512 KiB under way at a time, no cap.
korora-mirror     `korora migrate --disks all --storage-mode mirror`: as deep as QEMU likes, no cap.
korora-outsource  `--storage-mode outsource`; what is popular was learnt by the daemon, of three samples.
korora-unwatched  `--storage-mode outsource` of a guest that nobody watched: in the order of the disk (W6).
korora-auto       `--storage-mode auto`, after the same.

`idle` is each guest for 8 s before its move. All figures of a move are of the time from the order to the last
that the guest said at the source: its disk lies on fast storage afterwards. `reads_mib`: what was read of
the throttled disk until two seconds later, by program; of QEMU, in requests of more than 4 KiB, which is not
the guest.
`total_s` has the wipe of the throttled disk in it, where it is Korora that moves.
Run: script/bench storage --throttled [--mib 512] [--iops 2000] [--mb-per-s 40] [--runs 3] [--ways A,B]
     [--loads zones,flat] [--trace FILE] [--json FILE]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
from bench import machine as this_machine
from bench.lab import accelerator, ended, say, two_hosts
from bench.slow_figures import (
    AUTO,
    LOADS,
    OUTSOURCED,
    PEER,
    UNWATCHED,
    WAYS,
    Report,
    Slow,
    figures_of,
    goals_of,
    ratios_of,
    table,
)
from bench.storage_guest import Boot, definition, random_disk
from bench.storage_movers import IDLE_S, ByKorora, ByQemu, Move
from bench.throttled_folder import SMALL_BYTES
from bench.throttled_storage import ThrottledStorage

from korora.client import Daemon
from korora.errors import KororaError, ToolError
from korora.lab.interruption import undisturbed
from korora.lab.layout import Layout
from korora.lab.lifecycle import restart_daemon

WATCHED_S: Final = 2.7
"""Three samples of a second."""
_WATCHED_WITHIN_S: Final = 120.0
_SPEAKS_WITHIN_S: Final = 2.0
"""A guest's last word at the source may be so much older than its pause, to which the disk is read."""
_QEMU: Final = "qemu-system-x86"


# -- the session -------------------------------------------------------------------------------------------


class Session:
    """One lab, whose moves follow each other."""

    def __init__(
        self, layout: Layout, storage: ThrottledStorage, accelerated: str, asked: argparse.Namespace
    ) -> None:
        self._layout = layout
        self._storage = storage
        self._accelerated = accelerated
        self._asked = asked
        self._boot = Boot.made(layout.storage)
        self._names = (f"slow{number}" for number in range(1, 1 << 16))

    def move(self, way: str, load: str, number: int) -> Slow:
        name = next(self._names)
        random_disk(self._storage.beside / f"{name}.raw", self._asked.mib)
        disk = self._storage.folder / f"{name}.raw"
        if way == PEER:
            folder = self._layout.directory / "p" / name
            theirs = ByQemu(
                *(self._layout, folder, name, lambda where: self._text(name, where, load), disk, {}),
                elsewhere=self._layout.storage,
            )
            return self._moved(theirs, load, lambda: theirs.move(number, way=way, shallow=True))
        with ExitStack() as undo:
            if way == UNWATCHED:
                undo.enter_context(self._nobody_watches())
            ours = ByKorora(self._layout, name, self._text(name, disk, load))
            undo.callback(self._gone, name)
            if way in {OUTSOURCED, AUTO}:
                self._watched(name)
            words = ["--storage-mode", (OUTSOURCED if way == UNWATCHED else way).removeprefix("korora-")]
            return self._moved(ours, load, lambda: ours.move(number, way=way, words=words))

    def _moved(self, mover: ByKorora | ByQemu, load: str, move: Callable[[], Move]) -> Slow:
        try:
            mover.console.wait_for_load()
            before = mover.console
            moved = move()
            began, left = mover.began, mover.began + moved.here_s + _SPEAKS_WITHIN_S
            if self._asked.trace:
                with self._asked.trace.open("a") as trace:
                    trace.writelines(self._seconds(before, moved, load, began))
            return Slow(load, moved, self._reads(began, left))
        finally:
            mover.end()

    def _reads(self, began: float, ended: float) -> dict[str, float]:
        told = self._storage.between(began, ended)
        of = {
            name: done.read_bytes - (SMALL_BYTES * done.small_reads if name == _QEMU else 0)
            for name, done in told.items()
        }
        return {name: round(read / 2**20, 1) for name, read in of.items() if read}

    def _seconds(self, console: Any, moved: Move, load: str, began: float) -> Iterator[str]:
        """One line for each second of the guest's, from the idle ones on."""
        yield f"{load}, {moved.way}, {moved.number}: here {moved.here_s} s, in all {moved.wall_s} s\n"
        for said in console.seconds(began - IDLE_S, began + moved.wall_s):
            read = self._reads(said.when - 1.0, said.when)
            latencies = " ".join(f"{one / 1000:.1f}" for one in said.latencies[2:])
            at = said.when - began
            where = "idle" if at < 0 else "here" if at <= moved.here_s else "there"
            yield f"  {at:6.1f} {where:>5} {said.requests:6} {latencies} {read}\n"

    def _watched(self, name: str) -> None:
        host = self._layout.host("a")
        limit = time.monotonic() + _WATCHED_WITHIN_S
        with Daemon(host.api, host.name) as daemon:
            while not any(disk.seen_s >= WATCHED_S for disk in daemon.heat(name).disks):
                if time.monotonic() > limit:
                    raise ToolError("the daemon does not watch the guest's disk", kind="bench-heat")
                time.sleep(0.5)

    @contextmanager
    def _nobody_watches(self) -> Iterator[None]:
        """The source's daemon looks at no disk."""
        host = self._layout.host("a")
        was = host.configuration.read_text()
        host.configuration.write_text(f"{was}\n[heat]\nevery_seconds = 0\n")
        try:
            restart_daemon(self._layout, host)
            yield
        finally:
            host.configuration.write_text(was)
            restart_daemon(self._layout, host)

    def _gone(self, name: str) -> None:
        for host in self._layout.hosts(2):
            with suppress(KororaError), Daemon(host.api, host.name) as daemon:
                daemon.stop(name, force=True)
            for disk in (host.state / "vms" / name / "disks").glob("*"):
                disk.unlink()
        (self._storage.beside / f"{name}.raw").unlink(missing_ok=True)

    def _text(self, name: str, disk: Path, load: str) -> str:
        return definition(name, disk, self._accelerated, self._boot, f"load={load}")


def main(arguments: Sequence[str]) -> int:
    asked = _arguments(arguments)
    return ended(lambda: _told(asked))


def _told(asked: argparse.Namespace) -> None:
    report = _session(asked)
    print(table(report))
    if asked.json:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")


def _session(asked: argparse.Namespace) -> Report:
    moves: list[Slow] = []
    with two_hosts() as layout, _throttled(layout, asked) as storage:
        with_ = accelerator(layout)
        description = this_machine.describe(with_)
        session = Session(layout, storage, with_, asked)
        for turn in _turns(asked):
            moves.append(session.move(*turn))
            say(f"{moves[-1]}")
    figures = figures_of(moves)
    ratios = ratios_of(figures)
    description = msgspec.structs.replace(description, load_after=this_machine.load())
    return Report(
        description, asked.mib, asked.iops, asked.mb_per_s * 10**6, moves, figures, ratios, goals_of(ratios)
    )


@contextmanager
def _throttled(layout: Layout, asked: argparse.Namespace) -> Iterator[ThrottledStorage]:
    """The lab's. Each host has a view of its own of what is mounted, from when its daemon started."""
    folder, beside = layout.storage / "slow", layout.directory / "beside"
    storage = ThrottledStorage(folder, beside, asked.iops, asked.mb_per_s * 10**6)
    try:
        for host in layout.hosts(2):
            restart_daemon(layout, host)
        yield storage
    finally:
        with undisturbed():
            storage.close()


def _turns(asked: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    pairs = [(way, load) for load in asked.loads for way in asked.ways]
    for number in range(1, asked.runs + 1):
        shift = (number - 1) % len(pairs)
        for way, load in pairs[shift:] + pairs[:shift]:
            yield way, load, number


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    reader = argparse.ArgumentParser(prog="script/bench storage --throttled")
    reader.add_argument("--mib", type=int, default=512, help="of the disk (512)")
    reader.add_argument("--iops", type=int, default=2000, help="that the storage gives (2000)")
    reader.add_argument("--mb-per-s", type=int, default=40, help="that it gives (40)")
    reader.add_argument("--runs", type=int, default=3, help="of each way under each load (3)")
    reader.add_argument("--ways", type=_some_of(WAYS), default=WAYS)
    reader.add_argument("--loads", type=_some_of(LOADS), default=LOADS[:2])
    reader.add_argument("--trace", type=Path, help="each second of the guest's goes there")
    reader.add_argument("--json", type=Path)
    asked = reader.parse_args(arguments)
    if asked.mib < 64 or min(asked.runs, asked.iops, asked.mb_per_s) < 1:
        reader.error("--mib is at least 64, the others are at least 1")
    return asked


def _some_of(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def some(text: str) -> tuple[str, ...]:
        found = tuple(text.split(","))
        if set(found) - set(known):
            raise argparse.ArgumentTypeError(f"they are {', '.join(known)}")
        return found

    return some


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
