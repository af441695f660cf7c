"""The demonstration's own lab folder: made, owned, and cleared away, whatever happens.

Promise: what a killed demonstration left is removed by the next one; a lab that was kept on purpose, or
whose demonstration still runs, is not touched. Limit: /run must exist (it does on Debian).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

PARENT = Path("/run")
_OURS, _KEPT = "korora-demo-", "korora-kept-"
_PROGRAM = b"korora.lab.demo"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asks to end. Not an Exception: nothing on the way may take it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.exit_code = 128 + number


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Signals raise Interrupted here, once; later ones find the clearing away under way and wait for it."""

    owner = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            os._exit(128 + number)  # a child that pyroute2 forked, and ends so; the story is not its own
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """No signal ends anything in here: what is half cleared away is worse than a second more."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def new_folder(*, keep: bool, parent: Path = PARENT) -> Path:
    """Where this process's lab shall be. Its name says whose it is, and whether anybody may clear it away."""
    return parent / f"{_KEPT if keep else _OURS}{os.getpid()}"


def leftovers(parent: Path = PARENT) -> list[Path]:
    """Folders of demonstrations that were killed: whoever made them does not run any more."""
    found = sorted(parent.glob(f"{_OURS}[0-9]*"))
    return [folder for folder in found if not _demonstrates(folder.name.removeprefix(_OURS))]


def _demonstrates(pid: str) -> bool:
    """Whether that process is a demonstration now; a number may have gone to somebody else, or be our own."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return pid != str(os.getpid()) and _PROGRAM in words
