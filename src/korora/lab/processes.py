"""Start processes that outlive this one, and end exactly those later: by pid *and* start time.

Promise: a pid that the kernel has given to somebody else since is never touched. Limit: a machine that was
restarted has none of them, and the records of its earlier life are recognised by the boot's identity.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from korora.errors import ToolError


class Started(msgspec.Struct, frozen=True):
    """A process by what identifies it on this machine: start time in clock ticks since boot."""

    name: str
    pid: int
    start_time: int
    boot: str

    @property
    def alive(self) -> bool:
        return self.boot == _boot() and start_time(self.pid) == self.start_time


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes of one lab, recorded one file each in `directory`."""

    directory: Path

    def start(self, name: str, command: Sequence[str], *, log: Path, netns: str | None = None) -> Started:
        """Start it in its own session, output appended to `log`, in a network namespace if one is named."""
        # It also mounts that namespace's /sys, where programs look for bridges; the pid stays the same.
        inside = ["ip", "netns", "exec", netns] if netns else []
        with log.open("ab") as output:
            try:
                child = subprocess.Popen(
                    [*inside, *command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            except OSError as error:
                raise ToolError(
                    f"cannot start {command[0]}: {error.strerror}",
                    kind="tool-missing",
                    remedy="script/setup installs what the lab needs",
                ) from error
        started = Started(name, child.pid, start_time(child.pid) or 0, _boot())
        self._file(name).write_bytes(msgspec.json.encode(started))
        return started

    def find(self, name: str) -> Started | None:
        """The recorded process if it still lives."""
        try:
            known = msgspec.json.decode(self._file(name).read_bytes(), type=Started)
        except (OSError, msgspec.MsgspecError):
            return None
        return known if known.alive else None

    def end(self, name: str, *, patience_s: float = 10.0) -> None:
        """Ask it to end, then kill it. Idempotent; its record is gone afterwards."""
        found = self.find(name)
        if found:
            end_process(found.pid, found.start_time, patience_s=patience_s)
        self._file(name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        return sorted(file.stem for file in self.directory.glob("*.json"))

    def _file(self, name: str) -> Path:
        return self.directory / f"{name}.json"


def start_time(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat; None when there is no such process, or only its zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def end_process(pid: int, started: int, *, patience_s: float = 10.0) -> None:
    """SIGTERM, and SIGKILL to what is left after `patience_s`. Returns when the process is gone."""
    for number, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, 10.0)):
        limit = time.monotonic() + wait_s
        with contextlib.suppress(ProcessLookupError):
            if start_time(pid) == started:
                os.kill(pid, number)
        while start_time(pid) == started and time.monotonic() < limit:
            time.sleep(0.02)
        if start_time(pid) != started:
            break
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # ours, if this very process started it


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
