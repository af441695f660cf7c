"""How the tests are spread over processes: those in the lab take turns in one, other real VMs in a second,
and everything else runs beside them.

Property tests draw the same cases in every run, so that a change is judged by what it changed. With
KORORA_CHANCE=1 they draw new ones.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler.loadscope import LoadScopeScheduling

_REAL_VMS = "tests/end_to_end/"
_WITHOUT_THE_LAB = frozenset(
    f"{_REAL_VMS}test_{name}.py"
    for name in (
        *("bench", "demo", "heat", "lab_guest", "lab_lifecycle", "measured_boot", "qemu_hardware"),
        *("supervision", "vtpm_move"),
    )
)

settings.register_profile("korora", derandomize=not os.environ.get("KORORA_CHANCE"), deadline=None)
settings.load_profile("korora")


class OneLab(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """All tests in the lab share it, so one process runs them, in their order. Those that make VMs of their
    own would wait behind them for nothing."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.partition("::")[0] in _WITHOUT_THE_LAB:
            return f"{_REAL_VMS}without the lab"
        return _REAL_VMS if nodeid.startswith(_REAL_VMS) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneLab:
    return OneLab(config, log)
