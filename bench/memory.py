"""How much memory a command takes with everything that it starts, watched while it runs.

Limit: looked at every 20 ms by VmHWM, the kernel's own high-water mark of each process: one that is gone
sooner is not seen, and processes need not have been at their highest at the same moment, so the sum is an
upper bound.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

EVERY_S: Final = 0.02


def peaks_mib(command: list[str]) -> dict[str, float]:
    """`itself`, the `largest` of its processes, and the `sum` of all that were seen at one time."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    highest: dict[int, int] = {}
    together = 0
    while process.poll() is None:
        seen = {pid: _high_water_kib(pid) for pid in _below(process.pid)}
        for pid, kib in seen.items():
            highest[pid] = max(kib, highest.get(pid, 0))
        together = max(together, sum(highest[pid] for pid in seen))
        time.sleep(EVERY_S)
    own = highest.get(process.pid, 0)
    peaks = {"itself": own, "largest": max(highest.values(), default=0), "sum": together}
    return {name: round(value / 1024, 1) for name, value in peaks.items()}


def _below(pid: int) -> Iterator[int]:
    """The process and all that it started, and they."""
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = path.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _below(int(child))


def _high_water_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
