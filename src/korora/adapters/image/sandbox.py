"""A program that reads what nobody vouches for, where it sees nothing else and can reach nobody.

Promise: it runs in namespaces of its own (no network, no processes, no files but /usr and those given to it,
read-only), without capabilities, within bounds of memory, processor time and open files, and ends with this
process, or with the thread of it that started it. Limit: the kernel is the wall; a hole in it is a way out.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from korora.errors import ToolError

WRITTEN_BYTES: Final = 64 << 20  # of a file: an answer, where one is taken
DAY_S: Final = 24 * 3600
MEMORY_BYTES: Final = 2 << 30
"""Of address space, of which the stacks of QEMU's 64 threads are a quarter; what is used is far less."""
_GONE_WITHIN_MS: Final = 10_000


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill it, and wait until nothing of it is left: only then the files that it had open are unlocked.

    Whoever kills only the process outside while it starts leaves the one inside for good: it asks to die with
    its parent late. So the one outside is stopped, and what it has begun by then is killed first; what it was
    just beginning is of its group.
    """
    inside: list[int] = []
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGSTOP)
        inside += _inside(process.pid)
        for descriptor in inside:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for descriptor in inside:
        # The first process of its namespace: it is gone when all others are.
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        waiting.poll(_GONE_WITHIN_MS)
        os.close(descriptor)


def _inside(pid: int) -> Iterator[int]:
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield os.pidfd_open(int(child))


@dataclass(frozen=True, slots=True)
class Sandbox:
    """`files`: path inside → file outside, read-only; `written`: those that it may write, none of them beyond
    `written_bytes`. `folder`: writable, seen as /run. `begins_in`: a folder inside, for relative
    names.
    """

    files: Mapping[str, Path]
    folder: Path | None = None
    processor_s: int = DAY_S
    written: Mapping[str, Path] = field(default_factory=dict)
    written_bytes: int = WRITTEN_BYTES
    begins_in: str = "/"

    def start(
        self,
        command: Iterable[str],
        output: int | IO[bytes] = subprocess.DEVNULL,
        errors: int | IO[bytes] = subprocess.DEVNULL,
        orders: int | IO[bytes] = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """ToolError(kind="sandbox") when bubblewrap is not there. What it writes goes to files: a pipe that
        nobody empties would stop it.
        """
        if shutil.which("bwrap") is None:
            raise ToolError(
                "images are read in a sandbox, and bubblewrap is not installed",
                kind="sandbox",
                remedy="install the package bubblewrap",
            )
        return subprocess.Popen(
            [*self._bubble(), "--", *self._bounded(), *command],
            stdin=orders,
            stdout=output,
            stderr=errors,
            process_group=0,
            env={"PATH": "/usr/bin:/usr/sbin", "LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "1"},
        )

    def _bubble(self) -> list[str]:
        words = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
        words += ["--ro-bind", "/usr", "/usr", "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108  its own
        for name in ("bin", "lib", "lib64", "sbin"):
            if Path("/", name).is_symlink():
                words += ["--symlink", f"usr/{name}", f"/{name}"]
            elif Path("/", name).is_dir():
                words += ["--ro-bind", f"/{name}", f"/{name}"]
        if self.folder is not None:
            words += ["--bind", str(self.folder), "/run"]
        for inside, outside in self.files.items():
            words += ["--ro-bind", str(outside), inside]
        for inside, outside in self.written.items():
            words += ["--bind", str(outside), inside]
        return [*words, "--chdir", self.begins_in]

    def _bounded(self) -> list[str]:
        sizes = (f"--as={MEMORY_BYTES}", f"--fsize={self.written_bytes}", "--core=0", "--nofile=256")
        return ["prlimit", *sizes, f"--cpu={self.processor_s}"]
