"""Processes that outlive the daemon: started in sessions of their own, found again without mistaking another
for one.

Promise: a process is known by pid, start time and boot, so a reused pid is never signalled.
Limit: the caller keeps the record; a process that was started but never recorded is not found again.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from korora.errors import ToolError

_children: dict[int, subprocess.Popen[bytes]] = {}  # of this daemon's own run: they want to be reaped
_KILL_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    started: int  # clock ticks since boot: field 22 of /proc/PID/stat
    boot: str  # /proc/sys/kernel/random/boot_id


def spawn(command: Sequence[str], descriptors: Sequence[int], log: Path) -> Process:
    """Start `command` with these descriptors and no terminal; its output is appended to `log` (0600)."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        child = subprocess.Popen(
            list(command),
            pass_fds=tuple(descriptors),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
        )
    except OSError as error:
        raise ToolError(f"{command[0]} cannot be started: {error}", kind="no-program") from error
    finally:
        os.close(output)
    _children[child.pid] = child
    # A child that ended at once is still there to be read: nobody but us reaps it.
    return Process(child.pid, _started(child.pid) or 0, _boot())


def is_alive(process: Process) -> bool:
    if child := _children.get(process.pid):
        child.poll()
    return process.boot == _boot() and _started(process.pid) == process.started


def wait_for_end(process: Process, deadline_s: float) -> bool:
    """True when it is gone, False when it still lives after the deadline."""
    until = time.monotonic() + deadline_s
    while is_alive(process):
        if (left := until - time.monotonic()) <= 0:
            return False
        try:
            watched = os.pidfd_open(process.pid)
        except ProcessLookupError:
            continue
        try:
            select.select([watched], [], [], left)
        finally:
            os.close(watched)
    return True


def end(process: Process, deadline_s: float) -> None:
    """Ask it to end (SIGTERM), then kill it. ToolError when even that does not help."""
    if _signal(process, signal.SIGTERM) and not wait_for_end(process, deadline_s):
        _signal(process, signal.SIGKILL)
        if not wait_for_end(process, _KILL_WITHIN_S):
            raise ToolError(f"process {process.pid} does not die", kind="undead")


def _signal(process: Process, number: signal.Signals) -> bool:
    """Through a pidfd: between the check and the signal the pid cannot become another process's."""
    try:
        target = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if not is_alive(process):
            return False
        signal.pidfd_send_signal(target, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(target)
    return True


def _started(pid: int) -> int | None:
    """None when there is no such process, or only its zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
