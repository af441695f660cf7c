"""Turns the trace off when the daemon is killed in the middle of a sample: a small process that waits for it.

The daemon writes to the process's standard input: `+` and the path of a QMP socket when a sample begins, `-`
and the path when it is over, each ended by a NUL. When the input ends, so has the daemon: the process
turns the trace off wherever a sample was left open, and ends. Run as a file, it imports nothing but the
standard library.

Limit: a daemon that stands still (SIGSTOP) holds its QMP connections, and QEMU serves one at a time: the
trace goes on until it goes on. Whoever kills this process, too, leaves it to the daemon that comes next.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import weakref
from contextlib import suppress
from pathlib import Path

EVENTS = ("blk_co_preadv", "blk_co_pwritev")
IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # it ends when the daemon has ended
DEADLINE_S = 10.0
_RETRY_S = 0.05


class Guard:
    """The daemon's hold on the process, which is started when it is needed, and again when it is gone."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def begins(self, qmp: Path) -> None:
        """Before the trace is turned on. OSError when there can be no such process: then it is not to be."""
        try:
            self._say(b"+", qmp)
        except BrokenPipeError:
            self._process = None
            self._say(b"+", qmp)

    def ends(self, qmp: Path) -> None:
        """After it was turned off."""
        with suppress(OSError):
            self._say(b"-", qmp)

    def _say(self, word: bytes, qmp: Path) -> None:
        if self._process is None:
            self._process = _started()
            weakref.finalize(self, _end, self._process)
        assert self._process.stdin is not None  # noqa: S101  it is a pipe
        os.write(self._process.stdin.fileno(), word + os.fsencode(qmp) + b"\0")


def _started() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", "-S", __file__]
    # Whoever ends all of a service may do so before the process has come to ignore it: it begins with these
    # signals held back, as it inherits them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(OSError, subprocess.TimeoutExpired):
        if process.stdin is not None:
            process.stdin.close()
        process.wait(2)


# -- the process ------------------------------------------------------------------------------------------


def main() -> None:
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    for path in _left_open():
        with suppress(OSError, ValueError):
            _quiet(path)


def _left_open() -> set[bytes]:
    """Where a sample had begun and was not over when the input ended."""
    begun: set[bytes] = set()
    rest = b""
    while piece := os.read(0, 65536):
        *words, rest = (rest + piece).split(b"\0")
        for word in words:
            (begun.add if word[:1] == b"+" else begun.discard)(word[1:])
    return begun


def _quiet(path: bytes) -> None:
    """Over a connection of its own, as soon as QEMU has let the daemon's go."""
    with _connected(path) as connection:
        connection.settimeout(DEADLINE_S)
        lines = connection.makefile("rb")
        lines.readline()
        commands = [{"execute": "qmp_capabilities"}]
        commands += [
            {"execute": "trace-event-set-state", "arguments": {"name": event, "enable": False}}  # type: ignore[dict-item]
            for event in EVENTS
        ]
        for command in commands:
            connection.sendall(json.dumps(command).encode() + b"\n")
            while "event" in json.loads(lines.readline()):
                pass


def _connected(path: bytes) -> socket.socket:
    directory, name = os.path.split(path)
    held = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    until = time.monotonic() + DEADLINE_S
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(f"/proc/self/fd/{held}/".encode() + name)
        except OSError:
            connection.close()
            if time.monotonic() > until:
                raise
            time.sleep(_RETRY_S)
        else:
            return connection


if __name__ == "__main__":
    main()
