"""One daemon per state directory and per socket; what a crash left behind is no obstacle."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from korora.errors import KororaError, RefusedError, UsageError
from korora.host.premises import listening_socket, only_daemon


def test_the_state_directory_is_private_and_held_by_one(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with only_daemon(state):
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        with pytest.raises(RefusedError) as caught, only_daemon(state):
            pass
        assert caught.value.kind == "already-running"
        assert str(os.getpid()) in caught.value.message
    with only_daemon(state):
        pass


def test_a_process_that_the_daemon_started_does_not_hold_its_lock(tmp_path: Path) -> None:
    with only_daemon(tmp_path):
        program = [sys.executable, "-c", "print('runs', flush=True); input()"]
        pipe = subprocess.PIPE
        child = subprocess.Popen(program, stdin=pipe, stdout=pipe, close_fds=False)
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == b"runs\n"
        with only_daemon(tmp_path):
            pass
    finally:
        child.communicate(b"\n", timeout=10)


def test_a_state_directory_that_cannot_be_is_an_error_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KororaError) as caught, only_daemon(tmp_path / "file"):
        pass
    assert caught.value.kind == "state-directory"


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "daemon.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(KororaError), only_daemon(tmp_path):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_the_socket_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "run" / "api.sock"
    with listening_socket(path):
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    listening_socket(path).close()
    assert path.exists()
    with listening_socket(path):
        with pytest.raises(RefusedError) as caught:
            listening_socket(path)
        assert caught.value.kind == "already-running"
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))


@pytest.mark.parametrize("what", ["file", "directory", "link"])
def test_what_is_no_socket_is_left_alone(tmp_path: Path, what: str) -> None:
    path = tmp_path / "api.sock"
    match what:
        case "file":
            path.write_text("precious")
        case "directory":
            path.mkdir()
        case _:
            path.symlink_to("/nowhere")
    with pytest.raises(UsageError):
        listening_socket(path)
    assert path.is_symlink() or path.exists()


def test_a_path_that_is_too_long_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        listening_socket(tmp_path / ("x" * 120))
    assert "api" in caught.value.remedy
