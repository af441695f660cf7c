"""Free memory of a virtual machine, kept from going back to its host while figures are made.

A guest with free page reporting (virtio-balloon, F_REPORTING) hands large free blocks to its host within a
second or two, and the next process that gets them waits while the host finds memory anew. Here that made the
first touch of 2 GiB cost 4.9 s instead of 0.2 s: more than a whole migration, paid by whichever way came upon
the cold blocks. So reporting rests during the runs, and the memory that they will use is touched once before.

Source: Linux, mm/page_reporting.c, parameter page_reporting_order.
"""

from __future__ import annotations

import mmap
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_ORDER: Final = Path("/sys/module/page_reporting/parameters/page_reporting_order")
_NEVER: Final = "11"
"""Blocks of this order and above are reported; the page allocator's largest are of order 10."""


@contextmanager
def kept(mib: int) -> Iterator[str]:
    """Touch this much of it, at most half, and let none go; says how it went. The setting is restored."""
    try:
        before = _ORDER.read_text().strip()
    except OSError:
        yield "this kernel reports no free memory to a host"
        return
    try:
        _ORDER.write_text(_NEVER)
    except OSError as error:
        yield f"free memory goes back to the host, and times vary with it: {error.strerror}"
        return
    try:
        _touch(min(mib, _available_mib() // 2))
        yield f"free memory was kept from going back to the host (page_reporting_order {before} -> {_NEVER})"
    finally:
        with suppress(OSError):
            _ORDER.write_text(before)


def _available_mib() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) // 1024


def _touch(mib: int) -> None:
    """In a process of its own, so that nothing of it stays."""
    toucher = multiprocessing.get_context("spawn").Process(target=_write_each_page, args=(mib,))
    toucher.start()
    toucher.join()


def _write_each_page(mib: int) -> None:
    with mmap.mmap(-1, mib * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for offset in range(0, len(memory), mmap.PAGESIZE):
            memory[offset] = 1
