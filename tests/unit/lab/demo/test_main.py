"""How the demonstration ends when a step of it fails: in one line, with the lab cleared away."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from korora.errors import ExitCode, ToolError
from korora.lab.demo import __main__ as demo
from korora.lab.layout import Layout

Captured = pytest.CaptureFixture[str]
FOLDER = Path("/run/demo")  # short enough for the sockets in it; nothing is made there
FAILURES = [
    (subprocess.TimeoutExpired(["korora", "migrate\nweb"], 5), ExitCode.TOOL, "timed out"),
    (subprocess.CalledProcessError(1, ["ip", "netns"]), ExitCode.TOOL, "ip"),
    (OSError(28, "No space left on device"), ExitCode.TOOL, "No space left"),
    (ToolError("QEMU ended", remedy="see its log"), ExitCode.TOOL, "QEMU ended (see its log)"),
    (AssertionError(), ExitCode.BUG, "a bug in the demonstration: AssertionError"),
    (KeyError("downtime_ms"), ExitCode.BUG, "downtime_ms"),
]


@pytest.mark.parametrize(("failure", "code", "told"), FAILURES, ids=lambda it: type(it).__name__)
def test_a_step_that_fails_is_told_in_one_line_and_the_lab_is_taken_down(
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
    failure: Exception,
    code: ExitCode,
    told: str,
) -> None:
    gone: list[Layout] = []

    def fails(*_: object) -> None:
        raise failure

    monkeypatch.setattr(demo, "_require_root", lambda: None)
    monkeypatch.setattr(demo, "leftovers", list)
    monkeypatch.setattr(demo, "_tell", fails)
    monkeypatch.setattr(demo, "take_down", gone.append)
    assert demo.main(["--dir", str(FOLDER)]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("demo: ")
    assert told in line
    assert [layout.directory for layout in gone] == [FOLDER]


def test_a_lab_that_cannot_be_taken_down_is_told_too(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def fails(*_: object) -> None:
        raise subprocess.TimeoutExpired(["ip"], 5)

    monkeypatch.setattr(demo, "_require_root", lambda: None)
    monkeypatch.setattr(demo, "leftovers", list)
    monkeypatch.setattr(demo, "_tell", lambda *_: None)
    monkeypatch.setattr(demo, "take_down", fails)
    assert demo.main(["--dir", str(FOLDER)]) == ExitCode.TOOL
    assert "timed out" in capsys.readouterr().err
