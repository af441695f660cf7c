"""Processes that outlive the daemon."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from korora.agents.vtpm import processes
from korora.errors import ToolError


def sleeper(tmp_path: Path, code: str = "import time; time.sleep(60)") -> processes.Process:
    return processes.spawn([sys.executable, "-S", "-c", code], (), tmp_path / "log")


def test_a_process_has_a_session_of_its_own_and_ends_when_asked(tmp_path: Path) -> None:
    process = sleeper(tmp_path)
    assert processes.is_alive(process)
    assert os.getsid(process.pid) == process.pid
    processes.end(process, 10)
    assert not processes.is_alive(process)
    processes.end(process, 10)


def test_one_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    process = sleeper(
        tmp_path,
        "import signal, time, pathlib; signal.signal(15, signal.SIG_IGN);"
        f"pathlib.Path({str(ready)!r}).touch(); time.sleep(60)",
    )
    while not ready.exists():
        assert processes.is_alive(process)
    processes.end(process, 0.1)
    assert not processes.is_alive(process)


def test_a_reused_pid_is_never_signalled(tmp_path: Path) -> None:
    process = sleeper(tmp_path)
    for other in (replace(process, started=process.started - 1), replace(process, boot="another")):
        assert not processes.is_alive(other)
        processes.end(other, 1)
    assert processes.is_alive(process)
    processes.end(process, 10)


def test_a_zombie_is_not_alive(tmp_path: Path) -> None:
    process = sleeper(tmp_path, "pass")
    assert processes.wait_for_end(process, 10)


def test_a_missing_program_is_a_tools_error(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="cannot be started"):
        processes.spawn(["/nonexistent/program"], (), tmp_path / "log")
