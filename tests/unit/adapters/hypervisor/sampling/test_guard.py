"""The guard waits for the daemon's end, heeds no signal meant for others, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from korora.adapters.hypervisor.sampling import guard as module
from korora.adapters.hypervisor.sampling.guard import Guard
from korora.adapters.hypervisor.sampling.lines import EVENTS


def gone(pid: int) -> bool:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


class Monitor:
    """A QMP socket that says yes to everything, and keeps what was said."""

    def __init__(self, path: Path) -> None:
        self.said: list[bytes] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(30)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with self._listener, suppress(TimeoutError):  # there are tests in which nobody speaks to it
            connection, _ = self._listener.accept()
            with connection, connection.makefile("rb") as lines:
                connection.sendall(b'{"QMP": {}}\n')
                for line in lines:
                    self.said.append(line)
                    connection.sendall(b'{"event": "RESUME"}\n{"return": {}}\n')


def closed(guard: Guard) -> int:
    """As when the daemon ends."""
    assert guard._process is not None
    assert guard._process.stdin is not None
    guard._process.stdin.close()
    return guard._process.pid


def test_events_are_those_that_are_sampled() -> None:
    assert module.EVENTS == EVENTS


def test_where_a_sample_was_left_open_the_trace_is_turned_off(tmp_path: Path) -> None:
    left, over = Monitor(tmp_path / "left"), Monitor(tmp_path / "over")
    guard = Guard()
    guard.begins(tmp_path / "over")
    guard.begins(tmp_path / "left")
    guard.ends(tmp_path / "over")
    assert gone(closed(guard))
    left.thread.join(30)
    assert b"qmp_capabilities" in left.said[0]
    assert [
        event.encode() in line and b"false" in line for event, line in zip(EVENTS, left.said[1:], strict=True)
    ]
    assert over.said == []


def test_it_ends_though_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = Guard()
    guard.begins(tmp_path / "nowhere" / "qmp.sock")
    assert gone(closed(guard))


def test_it_heeds_no_signal_that_ends_a_service(tmp_path: Path) -> None:
    monitor, guard = Monitor(tmp_path / "qmp"), Guard()
    guard.begins(tmp_path / "qmp")
    pid = guard.pid
    assert pid is not None
    status = Path(f"/proc/{pid}/status")
    until = time.monotonic() + 30
    while int(status.read_text().split("SigIgn:")[1].split()[0], 16) & 1 << signal.SIGTERM - 1 == 0:
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGINT)
    assert gone(closed(guard))
    monitor.thread.join(30)
    assert len(monitor.said) == 3


def test_it_heeds_none_while_it_begins_either_and_the_daemon_hears_its_own(tmp_path: Path) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    for number in range(5):
        path = tmp_path / str(number)
        monitor, guard = Monitor(path), Guard()
        guard.begins(path)
        assert guard.pid is not None
        for one in module.IGNORED:
            os.kill(guard.pid, one)  # its interpreter has hardly begun
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
        assert gone(closed(guard))
        monitor.thread.join(30)
        assert len(monitor.said) == 1 + len(EVENTS)


def test_a_guard_that_was_killed_is_started_again(tmp_path: Path) -> None:
    guard = Guard()
    guard.begins(tmp_path / "qmp")
    first = guard.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert gone(first)
    guard.ends(tmp_path / "qmp")
    guard.begins(tmp_path / "qmp")
    assert guard.pid != first
    guard.ends(tmp_path / "qmp")
    assert gone(closed(guard))


def test_who_forgets_a_guard_leaves_no_process(tmp_path: Path) -> None:
    guard = Guard()
    guard.begins(tmp_path / "qmp")
    guard.ends(tmp_path / "qmp")
    pid = guard.pid
    assert pid is not None
    del guard
    assert gone(pid)
