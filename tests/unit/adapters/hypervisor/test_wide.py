"""A connection that QEMU has made by itself gets as much room as one that was made for it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from korora.adapters.hypervisor.wide import connect_wide, widen


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "out.sock"))
        listener.listen(2)
        yield tmp_path / "out.sock"


def room(connection: socket.socket) -> int:
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)


def test_a_connection_of_another_process_gets_room(path: Path) -> None:
    said = (
        "import socket, sys; one = socket.socket(socket.AF_UNIX); one.connect(sys.argv[1]);"
        "room = lambda: one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF);"
        "print(room(), flush=True); sys.stdin.readline(); print(room(), flush=True)"
    )
    words = [sys.executable, "-c", said, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        before = int(other.stdout.readline())
        assert widen(other.pid, str(path))
        other.stdin.write("\n")
        other.stdin.flush()
        assert int(other.stdout.readline()) > before


def test_it_gets_as_much_as_one_that_was_made_for_it(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as own, connect_wide(path) as made:
        own.connect(str(path))
        assert widen(os.getpid(), str(path))
        assert room(own) == room(made)


def test_connections_to_elsewhere_are_let_be(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as own:
        own.connect(str(path))
        before = room(own)
        assert not widen(os.getpid(), str(path.with_name("other.sock")))
        assert room(own) == before


def test_a_process_that_is_gone_has_none(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as other:
        other.wait()
    assert not widen(other.pid, str(path))
