"""A disk's popularity as rows of blocks: the higher and the warmer, the more often.

Heights are of the logarithm, so that a quiet place beside a busy one can be seen. Colours only on a terminal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from korora.cli.render import clean, say, size
from korora.model.heat import DiskHeat, VmHeat

ROW: Final = 64
BLOCKS: Final = "·▁▂▃▄▅▆▇█"
COLOURS: Final = ("", "blue", "cyan", "cyan", "green", "yellow", "dark_orange", "red", "bright_red")


def show_heat(told: VmHeat, disks: Sequence[DiskHeat]) -> None:
    if told.why:
        say(f"{told.vm} is not watched now: {told.why}")
    if not disks:
        when = "" if told.why else f": {told.sample_s:g} s in every {told.every_s:g} s are watched"
        say(f"nothing is known of its disks yet{when}")
        return
    for disk in disks:
        _show_disk(disk)
    say(f"{BLOCKS[0]} none seen  {BLOCKS[1:]} seldom to as often as anywhere on the disk, logarithmic")


def levels(rates: Sequence[float]) -> list[int]:
    """0 for nothing, else 1 to 8: a share of the greatest, over three powers of ten."""
    most = max(rates, default=0.0)
    top = len(BLOCKS) - 1
    return [
        0 if rate <= 0 else max(1, min(top, top + math.ceil((math.log10(rate) - math.log10(most)) * top / 3)))
        for rate in rates
    ]


def rows(rates: Sequence[float]) -> Iterator[tuple[int, list[int]]]:
    """(first cell, levels) of each row."""
    every = levels(rates)
    for first in range(0, len(every), ROW):
        yield first, every[first : first + ROW]


def _show_disk(disk: DiskHeat) -> None:
    cell = disk.cell_chunks * disk.chunk_bytes
    say(f"{disk.name}  {size(disk.size)}, each block {size(cell)}")
    for kind, per_s, rates in (
        ("read", disk.reads_per_s, disk.cell_reads_per_s),
        ("written", disk.writes_per_s, disk.cell_writes_per_s),
    ):
        say(f"  {kind} {per_s:.3g} times a second, at most {max(rates, default=0.0):.3g} in a block")
        for first, row in rows(rates):
            _coloured(f"  {size(first * cell):>10}  ", row)
    hot = size(disk.hot_chunks * disk.chunk_bytes)
    say(f"  popular: {disk.hot_chunks} chunks, {hot}, with {disk.hot_share:.0%} of the reads")
    say(f"  learnt from {disk.seen_s:.3g} s; {disk.known_chunks} chunks known, in {size(disk.held_bytes)}")


def _coloured(label: str, row: Sequence[int]) -> None:
    from rich.console import Console
    from rich.text import Text

    line = Text(clean(label))
    for level in row:
        line.append(BLOCKS[level], COLOURS[level] or None)
    Console(soft_wrap=True, highlight=False).print(line)
