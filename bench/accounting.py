"""What processes cost: CPU seconds of whole trees, peak memory of one, and the machine's total. From /proc.

A tree's CPU is the sum over its living processes of their own time and of what their ended and awaited
children used (proc(5), fields 14 to 17), so nothing is lost when a child ends. Limit: counted in ticks of
10 ms.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_IDLE: Final = slice(3, 5)  # of /proc/stat's first line: idle, iowait


def tree_cpu_s(roots: Iterable[int]) -> float:
    """User and system time of these processes and everything below them."""
    return sum(_cpu_s(pid) for pid in tree(roots))


def tree(roots: Iterable[int]) -> Iterator[int]:
    children = _children()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += children.get(pid, [])


def machine_cpu_s() -> float:
    """What the whole machine was busy for since it started."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - sum(fields[_IDLE])) / _TICKS_PER_S


def reset_peak(pid: int) -> None:
    """Let VmHWM begin anew at the present size (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0


def descendants_named(root: int, word: bytes) -> list[int]:
    """Processes below `root` with this word in their command line."""
    return [pid for pid in tree([root]) if pid != root and word in _command_line(pid)]


def _cpu_s(pid: int) -> float:
    try:
        fields = _stat(pid)
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS_PER_S


def _children() -> dict[int, list[int]]:
    of: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208  names alone, and quickly: this is inside a measurement
        if entry.isdigit():
            with contextlib.suppress(OSError):
                of.setdefault(int(_stat(int(entry))[1]), []).append(int(entry))
    return of


def _stat(pid: int) -> list[bytes]:
    """The fields from the third on (state, parent, …)."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
