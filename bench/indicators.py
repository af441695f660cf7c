"""Measure how fast indicators are imported, loaded and looked for, and what more of them cost.

The indicators are made up: hashes, domains, URLs and addresses in equal parts. What is looked through is made
up: a log full of addresses and URLs (the most there is to look at), words, random bytes, UTF-16 text, zeros.
Times are wall-clock; memory is what the process grew by when it loaded them. Each number of indicators has a
process of its own.
Run: script/bench indicators [--runs 3] [--json FILE] [--quick]
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from bench import machine as this_machine

from korora.adapters.indicators.sqlite import SqliteIndicators
from korora.agents.integrity.indicators import readers
from korora.agents.integrity.indicators.matching.known import Known
from korora.agents.integrity.indicators.matching.scan import Scan
from korora.model.indicator import Entry, Provenance
from korora.wiring.indicator_matching import known

FULL: Final = (1_000, 1_000_000)
QUICK: Final = (50, 500)
MIB: Final = 1 << 20
_NOW: Final = 1_800_000_000


class Speed(msgspec.Struct, frozen=True):
    """Medians of the runs, in MiB each second."""

    without_digests: float
    with_digests: float


class Measured(msgspec.Struct, frozen=True):
    indicators: int
    import_s: float
    load_s: float
    store_mib: float
    loaded_mib: float
    speeds: dict[str, Speed]


class Report(msgspec.Struct, frozen=True):
    machine: this_machine.Machine
    runs: int
    each_mib: int
    measured: list[Measured]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="script/bench indicators")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="a few indicators, little to look through")
    asked = parser.parse_args(arguments)
    if asked.runs < 1:
        parser.error("--runs is at least 1")
    each = 1 if asked.quick else 16
    description = this_machine.describe()
    context = multiprocessing.get_context("spawn")
    measured = []
    for count in QUICK if asked.quick else FULL:
        with context.Pool(1) as pool:
            measured.append(pool.apply(measure, (count, asked.runs, each)))
    described = msgspec.structs.replace(description, load_after=this_machine.load())
    report = Report(described, asked.runs, each, measured)
    print(table(report))
    if asked.json:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return 0


def measure(count: int, runs: int, each_mib: int) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "indicators.db"
        store = SqliteIndicators(file)
        listed = "\n".join(_values(count)).encode()
        began = time.perf_counter()
        store.write([_read(listed)])
        imported = time.perf_counter() - began
        del listed
        before, began = _memory_mib(), time.perf_counter()
        wanted = known(store, _NOW)
        loaded, grown = time.perf_counter() - began, _memory_mib() - before
        size = file.stat().st_size / MIB
        store.close()
    speeds = {
        name: Speed(*(_speed(wanted, data, runs, digests) for digests in (False, True)))
        for name, data in _contents(each_mib * MIB)
    }
    return Measured(
        wanted.count, round(imported, 2), round(loaded, 2), round(size, 1), round(grown, 1), speeds
    )


def _memory_mib() -> float:
    """Resident now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MIB


def _read(listed: bytes) -> Iterator[Entry]:
    basis = Provenance("bench", changed_at=_NOW, imported_at=_NOW)
    return (
        item for item in readers.read(readers.PLAIN, io.BytesIO(listed), basis) if isinstance(item, Entry)
    )


def _speed(wanted: Known, data: bytes, runs: int, digests: bool) -> float:
    took = []
    for _ in range(runs):
        scan = Scan(wanted, digests=digests)
        began = time.perf_counter()
        for at in range(0, len(data), MIB):
            scan.feed(data[at : at + MIB])
        scan.finish()
        took.append(len(data) / MIB / (time.perf_counter() - began))
    return round(statistics.median(took), 1)


# -- what is made up ---------------------------------------------------------------------------------------


def _values(count: int) -> Iterator[str]:
    drawn = random.Random(1)
    for number in range(count // 6):
        yield drawn.randbytes(32).hex()
        yield drawn.randbytes(16).hex()
        yield f"h{number}.bad{drawn.randrange(10**6)}.example"
        yield f"http://u{number}.example/p/{drawn.randrange(10**6)}?q"
        yield f"{drawn.randrange(1, 224)}.{'.'.join(str(byte) for byte in drawn.randbytes(3))}"
        yield f"2a00:{number >> 16:x}:{number & 0xFFFF:x}::{drawn.randrange(1, 65536):x}"


def _contents(size: int) -> Iterator[tuple[str, bytes]]:
    drawn = random.Random(2)
    log = _repeated(size, lambda number: _log_line(drawn, number))
    yield "log", log
    words = [
        bytes(drawn.choices(b"abcdefghijklmnopqrstuvwxyz", k=drawn.randrange(2, 10))) for _ in range(5000)
    ]
    yield (
        "words",
        _repeated(size, lambda _: drawn.choice(words) + drawn.choice((b" ", b" ", b".", b", ", b"\n"))),
    )
    yield "random bytes", drawn.randbytes(size)
    yield "log in UTF-16", log[: size // 2].decode().encode("utf-16-le")
    yield "zeros", bytes(size)


def _log_line(drawn: random.Random, number: int) -> bytes:
    address = ".".join(str(byte) for byte in drawn.randbytes(4))
    return (
        f'{address} - - [26/Nov/2026:20:26:{number % 60:02}] "GET http://www.host{drawn.randrange(5000)}.example.org/'
        f'a/{number}.html HTTP/1.1" 200 {number} "https://ref.example.net/" "Mozilla/5.0 (X11)"\n'
    ).encode()


def _repeated(size: int, make: Callable[[int], bytes]) -> bytes:
    made, length, number = [], 0, 0
    while length < size:
        made.append(make(number))
        length += len(made[-1])
        number += 1
    return b"".join(made)[:size]


def table(report: Report) -> str:
    names = list(report.measured[0].speeds)
    head = ["indicators", "import s", "load s", "store MiB", "memory MiB", *names]
    lines = [head, ["---"] * len(head)]
    for one in report.measured:
        speeds = [f"{one.speeds[name].without_digests} / {one.speeds[name].with_digests}" for name in names]
        figures = [one.import_s, one.load_s, one.store_mib, one.loaded_mib]
        lines.append([f"{one.indicators:,}", *map(str, figures), *speeds])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
