"""How the tests are spread over processes. Real VMs take turns: those that share a lab in one process, those
that have one of their own in another. Everything else runs beside them, and steps back for them.

Property tests draw the same cases in every run, so that a change is judged by what it changed. With
KORORA_CHANCE=1 they draw new ones.

Where CI is set, pytest writes out all of a difference, and seeks the best way to: two disks of 3 MiB that are
not the same take it many minutes. Here it never does so: it tells where they differ first.
"""

from __future__ import annotations

import gc
import mmap
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler.loadscope import LoadScopeScheduling

_APART = "tests/end_to_end/apart/"
_REAL_VMS = "tests/end_to_end/"
_NICE = {_APART: 5, _REAL_VMS: 0}
_BEHIND_NICE = 10
_GROWN_MIB = 512

for sign in ("CI", "BUILD_NUMBER"):
    os.environ.pop(sign, None)

settings.register_profile("korora", derandomize=not os.environ.get("KORORA_CHANCE"), deadline=None)
settings.load_profile("korora")


class ByLab(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Tests that share a lab run in one process, in their order; so do those that have labs of their own."""

    def _split_scope(self, nodeid: str) -> str:
        return _lab_of(nodeid) or nodeid


def _lab_of(nodeid: str) -> str | None:
    return next((folder for folder in _NICE if nodeid.startswith(folder)), None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Where several run at once, the guests are not to wait for other tests."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        lab = _lab_of(item.nodeid)
        nice = _NICE[lab] if lab else _BEHIND_NICE
        with suppress(PermissionError):  # of who may not come forward again
            os.setpriority(os.PRIO_PROCESS, 0, nice)


class Tidy:
    """Whole disks that nobody needs any more hang in cycles until Python looks for such."""

    def __init__(self) -> None:
        self._resident_mib = _resident_mib()

    def pytest_runtest_teardown(self) -> None:
        if _resident_mib() > self._resident_mib + _GROWN_MIB:
            gc.collect()
            self._resident_mib = _resident_mib()


def _resident_mib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * mmap.PAGESIZE >> 20


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Tidy())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByLab:
    return ByLab(config, log)
