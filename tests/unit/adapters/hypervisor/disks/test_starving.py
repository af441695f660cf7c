"""Time that a process waits for a CPU is told from time that it sleeps."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from korora.adapters.hypervisor.disks.starving import starved_s

DEADLINE_S = 60.0


@contextmanager
def running() -> Iterator[int]:
    """One that never rests, on the same CPU as all others of these."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_of_two_that_want_one_cpu_each_is_starved_but_not_in_threads_that_do_not_count() -> None:
    with running() as one, running() as other:
        until = time.monotonic() + DEADLINE_S
        while not (starved_s(one, ()) > 0.05 and starved_s(other, ()) > 0.05):
            assert time.monotonic() < until
            time.sleep(0.05)
        assert starved_s(one, {one}) == 0.0


def test_one_that_is_gone_is_not_starved() -> None:
    with running() as gone:
        pass
    assert starved_s(gone, ()) == 0.0
