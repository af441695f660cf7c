"""Processes that outlive their starter are found again, and only they are ended."""

import os
import sys
from pathlib import Path

import msgspec

from korora.lab.processes import Processes, Started, start_time

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_a_process_is_found_again_and_ended(tmp_path: Path) -> None:
    started = Processes(tmp_path).start("sleeper", SLEEP, log=tmp_path / "log")
    try:
        again = Processes(tmp_path)
        assert again.find("sleeper") == started
    finally:
        Processes(tmp_path).end("sleeper")
    assert not started.alive
    assert Processes(tmp_path).find("sleeper") is None
    assert Processes(tmp_path).names() == []


def test_a_process_that_ignores_being_asked_is_killed(tmp_path: Path) -> None:
    stubborn = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    started = Processes(tmp_path).start("stubborn", [sys.executable, "-c", stubborn], log=tmp_path / "log")
    while "up" not in (tmp_path / "log").read_text():
        assert started.alive
    Processes(tmp_path).end("stubborn", patience_s=0.2)
    assert not started.alive


def test_another_process_under_a_recorded_pid_is_left_alone(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    ours = start_time(os.getpid())
    assert ours is not None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for record in (
        Started("x", os.getpid(), ours - 1, boot),
        Started("x", os.getpid(), ours, "another boot"),
    ):
        (tmp_path / "x.json").write_bytes(msgspec.json.encode(record))
        assert processes.find("x") is None
        processes.end("x")  # or this test would not go on


def test_a_damaged_record_is_no_process(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    assert Processes(tmp_path).find("x") is None
