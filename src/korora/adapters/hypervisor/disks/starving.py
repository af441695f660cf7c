"""How long a hypervisor's threads were ready to run, and no CPU was free for them.

Storage that is slow and a machine that is busy look alike to whoever waits for a read; this tells them apart.
Source: the kernel's documentation of /proc/PID/task/TID/schedstat (sched-stats): the second figure, in ns.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path


def starved_s(pid: int, but: Collection[int]) -> float:
    """Of all its threads `but` these, since each began. 0.0 where nobody counts, or it is gone. Blocking."""
    total_ns = 0
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            if int(thread.name) not in but:
                total_ns += _waited_ns(thread / "schedstat")
    return total_ns / 1e9


def _waited_ns(figures: Path) -> int:
    with suppress(OSError, ValueError):
        _, waited, _ = figures.read_text().split()
        return int(waited)
    return 0
