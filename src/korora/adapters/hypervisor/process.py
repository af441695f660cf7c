"""A QEMU process that outlives the daemon: started in its own session, recorded, found again, ended.

A process is known by its pid, its start time and the boot it belongs to, so a recycled pid is never mistaken
for it. While watched it is held by a pidfd. Limit: watching needs a running event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from korora.errors import ToolError

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
RECORD = "process.json"
LOG = "qemu.log"
LOG_LINES = 5
_WAITS = "QEMU waiting for connection on"  # for us: it says so at each start
KILL_DEADLINE_S = 10.0


class ProcessRecord(msgspec.Struct, frozen=True):
    """What `process.json` says: who the process is, and what was pinned when it started."""

    pid: int
    start_ticks: int
    boot_id: str
    definition: str  # TOML
    incoming: bool
    may_have_run: bool


def read_record(directory: Path) -> ProcessRecord | None:
    """The record, or None where there is none or it cannot be read as one."""
    try:
        return msgspec.json.decode((directory / RECORD).read_bytes(), type=ProcessRecord)
    except (OSError, msgspec.MsgspecError):
        return None


def write_record(directory: Path, record: ProcessRecord) -> None:
    """Replace the record in one step; on a ToolError it is as it was.

    Not synced: it says nothing that outlives the host's boot.
    """
    fresh = directory / (RECORD + ".new")
    try:
        fresh.write_bytes(msgspec.json.encode(record))
        fresh.replace(directory / RECORD)
    except OSError as error:
        raise _unwritable(directory / RECORD, error) from error


def boot_id() -> str:
    return BOOT_ID.read_text().strip()


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot (proc(5), field 22); None when it is dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])


def is_alive(record: ProcessRecord) -> bool:
    return record.boot_id == boot_id() and start_ticks(record.pid) == record.start_ticks


@dataclass(frozen=True, slots=True)
class Spawned:
    pid: int
    start_ticks: int


def spawn(program: str, args: Sequence[str], directory: Path, log: Path, keep: Sequence[int]) -> Spawned:
    """Start `program` in `directory`, in a session of its own, with its output appended to `log`.

    `keep` are the descriptors it inherits. The caller reaps it through Process.
    """
    with _appended(log) as output:
        try:
            child = subprocess.Popen(
                [program, *args],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=directory,
                pass_fds=tuple(keep),
                start_new_session=True,
            )
        except OSError as error:
            raise ToolError(
                f"{program} cannot be started: {error.strerror}",
                kind="no-qemu",
                remedy="install it: apt-get install qemu-system-x86",
            ) from error
    # Process reaps by pidfd, here or after a restart; Popen must neither wait nor complain.
    child.returncode = 0
    return Spawned(child.pid, start_ticks(child.pid) or 0)


def _appended(log: Path) -> BinaryIO:
    try:
        return log.open("ab")
    except OSError as error:
        raise _unwritable(log, error) from error


def _unwritable(file: Path, error: OSError) -> ToolError:
    return ToolError(
        f"cannot write {file}: {error.strerror}",
        kind="state-directory",
        remedy="see that the daemon's state directory is writable and has room",
    )


class Process:
    """A live process, held by a pidfd. `gone` is set once it has ended and, if our child, been reaped."""

    def __init__(self, pid: int) -> None:
        try:
            self._pidfd = os.pidfd_open(pid)
        except OSError as error:
            raise ToolError(f"process {pid} is gone", kind="vm-process-gone") from error
        self.pid = pid
        self.gone = asyncio.Event()
        self._held = True
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)

    @property
    def is_gone(self) -> bool:
        """True as soon as it has ended, also before the event loop noticed."""
        if self._held and self._has_ended():
            self._ended()
        return self.gone.is_set()

    async def wait(self, deadline_s: float) -> bool:
        """Whether it ended within the deadline. ToolError(kind="vm-let-go") once it was released."""
        if not self._held and not self.gone.is_set():
            raise ToolError(f"process {self.pid} is not watched any more", kind="vm-let-go")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.gone.wait(), deadline_s)
        return self.is_gone

    def kill(self) -> None:
        if self._held:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def release(self) -> None:
        """Let go of it; it runs on, unwatched. Idempotent."""
        if self._held:
            self._held = False
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)

    def _has_ended(self) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def _ended(self) -> None:
        with contextlib.suppress(ChildProcessError):  # started by an earlier daemon: init reaps it
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        self.release()
        self.gone.set()


async def end(held: Process) -> None:
    """Kill if it still lives, reap, and do not come back before it is gone."""
    held.kill()
    if not await held.wait(KILL_DEADLINE_S):
        raise ToolError(
            f"process {held.pid} does not end",
            kind="vm-process-stuck",
            remedy="it hangs in the kernel (broken /dev/kvm or storage?); see `cat /proc/PID/stack`",
        )


def last_words(directory: Path, since: int = 0) -> str:
    """The last lines of qemu.log, from byte `since` on; empty where there are none."""
    try:
        text = (directory / LOG).read_bytes()[since:].decode(errors="replace")
    except OSError:
        return ""
    return words_of(text)


def words_of(printed: str) -> str:
    """The last lines of it, without QEMU's note that it waits for us."""
    lines = [line.strip() for line in printed.splitlines() if line.strip() and _WAITS not in line]
    return " | ".join(lines[-LOG_LINES:])
