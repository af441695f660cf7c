"""How the tests are spread over processes: real VMs take turns in one, everything else runs beside them, and
steps back for them.

Property tests draw the same cases in every run, so that a change is judged by what it changed. With
KORORA_CHANCE=1 they draw new ones.

Where CI is set, pytest writes out all of a difference, and seeks the best way to: two disks of 3 MiB that are
not the same take it many minutes. Here it never does so: it tells where they differ first.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler.loadscope import LoadScopeScheduling

_REAL_VMS = "tests/end_to_end/"
_BEHIND_NICE = 10

for sign in ("CI", "BUILD_NUMBER"):
    os.environ.pop(sign, None)

settings.register_profile("korora", derandomize=not os.environ.get("KORORA_CHANCE"), deadline=None)
settings.load_profile("korora")


class OneLab(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """All tests on real VMs share one lab, so one process runs them, in their order."""

    def _split_scope(self, nodeid: str) -> str:
        return _REAL_VMS if nodeid.startswith(_REAL_VMS) else nodeid


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Where several run at once, the guests are not to wait for other tests."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        nice = 0 if item.nodeid.startswith(_REAL_VMS) else _BEHIND_NICE
        with suppress(PermissionError):  # of who may not come forward again
            os.setpriority(os.PRIO_PROCESS, 0, nice)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneLab:
    return OneLab(config, log)
