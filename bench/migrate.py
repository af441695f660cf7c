"""Korora's migration against QEMU's own, interleaved: the same guest, hosts and link (docs/benchmark.md).

Brings up a lab of its own and takes it down. Limit: needs root; other load on the machine shows in the
figures, and `others' CPU s` says how much of it there was.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from bench import by_qemu, free_memory, machine
from bench.by_korora import ByKorora
from bench.by_qemu import ByQemu
from bench.certificates import make_certificates
from bench.figures import KORORA, TCP, Run, medians, peak_mib, ratios, table
from bench.guest import Fill, Watched, define
from bench.lab import accelerator as lab_accelerator
from bench.lab import ended, say, two_hosts

from korora.lab.layout import Layout
from korora.lab.namespaces import in_namespace
from korora.lab.observer import Observer

GROWTH_MIB: Final = (512, 2048, 4096)
QUICK_MIB: Final = 512
_WARMING: Final = (TCP, KORORA)
"""Each guest moves once before it counts: a fresh QEMU has no translations yet, a fresh daemon no facts."""
_TOUCHED: Final = 4
"""Guests' worth of memory in use at most: two at rest, one that arrives, and what was freed last."""
_WAYS: Final = {way.name: way for way in by_qemu.WAYS}


def main() -> int:
    asked = _arguments()
    return ended(lambda: _told(asked))


def _told(asked: argparse.Namespace) -> None:
    told = session(asked)
    if asked.json == "-":
        print(told.decode())
    elif asked.json:
        Path(asked.json).write_bytes(told + b"\n")


def session(asked: argparse.Namespace) -> bytes:
    """Measure all that was asked for; returns the results as JSON."""
    sizes = GROWTH_MIB if asked.growth else (asked.ram,)
    with free_memory.kept(_TOUCHED * max(sizes)) as fate, two_hosts() as layout:
        accelerator = lab_accelerator(layout)
        description = machine.describe(accelerator, fate)
        say(fate)
        by_size = {}
        for ram_mib in sizes:
            fill = Fill(ram_mib, asked.fill, asked.dirty_rate)
            by_size[ram_mib] = _measured(layout, fill, accelerator, asked)
            say(f"\n{ram_mib} MiB, filled {asked.fill}\n" + table(medians(by_size[ram_mib])))
            say(" ".join(f"{name}={value}" for name, value in ratios(medians(by_size[ram_mib])).items()))
        description = msgspec.structs.replace(description, load_after=machine.load())
    runs = by_size[sizes[-1]]
    results: dict[str, Any] = {
        "machine": description,
        "asked": vars(asked) | {"ram_mib": sizes[-1]},
        "runs": runs,
        "medians": medians(runs),
        "ratios": ratios(medians(runs)),
        "peak_mib": peak_mib(runs),
    }
    if asked.growth:
        results["growth"] = [
            {"ram_mib": size, "medians": medians(found), "ratios": ratios(medians(found)), "runs": found}
            for size, found in by_size.items()
        ]
    return msgspec.json.format(msgspec.json.encode(results), indent=1)


def _measured(layout: Layout, fill: Fill, accelerator: str, asked: argparse.Namespace) -> list[Run]:
    """Both guests boot, and take turns; afterwards both are asked whether they are whole."""
    hosts = layout.hosts(2)
    runs: list[Run] = []
    with ExitStack() as undo:
        observer = undo.enter_context(
            Observer(layout.observer_ip, bind=lambda make: in_namespace(layout.switch_netns, make))
        )
        plain, moved = (Watched(observer, layout.guest_ip(number)) for number in (11, 12))
        suffix = f"{fill.ram_mib}"
        theirs = ByQemu(
            layout.directory / "p",
            (hosts[0], hosts[1]),
            define(layout, f"plain-{suffix}", 11, fill, accelerator),
            make_certificates(layout.directory / f"tls-{suffix}", hosts),
            plain,
        )
        undo.callback(theirs.end)
        plain.wait_until_ready()
        theirs.hold()
        ours = ByKorora(layout, define(layout, f"korora-{suffix}", 12, fill, accelerator), moved)
        undo.callback(ours.end)
        moved.wait_until_ready()
        ours.hold()
        turns: list[tuple[str, Callable[[int], Run], Any, Watched]] = [
            (name, partial(theirs.move, _WAYS[name]), theirs, plain) for name in asked.ways if name != KORORA
        ]
        if KORORA in asked.ways:
            turns.append((KORORA, ours.move, ours, moved))
        for name, move, side, _ in turns:
            if name in _WARMING:
                side.go_on()
                move(0)
                side.hold()
        for number in range(1, asked.runs + 1):
            for name, move, side, watched in turns[number % len(turns) :] + turns[: number % len(turns)]:
                observer.forget()
                side.go_on()
                watched.settle()
                runs.append(move(number))
                side.hold()
                say(_line(name, runs[-1]))
        for side, watched in ((theirs, plain), (ours, moved)):
            side.go_on()
            watched.refuse_damage()
            side.hold()
    return runs


def _line(name: str, run: Run) -> str:
    return (
        f"{run.number:3} {name:14} wall {run.wall_s:6.2f} s  transfer {run.transfer_s:6.2f} s  "
        f"downtime {run.downtime_ms:5.0f} ms  CPU {run.cpu_s:5.2f} s  others {run.others_cpu_s:5.2f} s"
    )


def _size_mib(text: str) -> int:
    number, unit = text[:-1], text[-1:].upper()
    factors = {"M": 1, "G": 1024}
    if unit not in factors or not number.isdigit() or not 256 <= int(number) * factors[unit] <= 65536:
        raise argparse.ArgumentTypeError(f"{text} is no size from 256M to 64G")
    return int(number) * factors[unit]


def _ways(text: str) -> list[str]:
    names = text.split(",")
    unknown = set(names) - {*_WAYS, KORORA}
    if unknown:
        raise argparse.ArgumentTypeError(
            f"{', '.join(sorted(unknown))}: ways are {', '.join([*_WAYS, KORORA])}"
        )
    return names


def _arguments() -> argparse.Namespace:
    reader = argparse.ArgumentParser(
        prog="script/bench migrate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_argument("--ram", type=_size_mib, default="2G", help="the guest's memory (2G)")
    reader.add_argument("--fill", choices=("random", "mixed"), default="random", help="three quarters of it")
    reader.add_argument(
        "--dirty-rate", type=int, default=0, metavar="MIB/S", help="of a 16 MiB working set (0)"
    )
    reader.add_argument("--runs", type=int, default=5, metavar="N", help="of each way (5)")
    reader.add_argument("--ways", type=_ways, default=[*_WAYS, KORORA], metavar="A,B", help="leave some out")
    reader.add_argument("--growth", action="store_true", help="at 512 MiB, 2 GiB and 4 GiB")
    reader.add_argument("--quick", action="store_true", help="512 MiB, one run: does it work at all?")
    reader.add_argument("--json", metavar="FILE", help="write the results there; '-' prints them")
    asked = reader.parse_args()
    if asked.quick:
        asked.ram, asked.runs, asked.growth = QUICK_MIB, 1, False
        asked.ways = [name for name in asked.ways if name != "multifd-tls-4"]
    return asked


if __name__ == "__main__":
    sys.exit(main())
