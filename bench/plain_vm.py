"""The guest under QEMU and swtpm alone: Korora's own command line for it, without Korora.

Both processes are children of this one; what they used is known exactly when they have ended (wait4).
Limit: what Korora adds to a VM is missing on purpose: no interposer, no key at rest for the vTPM.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.accounting import tree_cpu_s
from bench.qmp import Qmp

from korora.adapters.hypervisor import network
from korora.adapters.hypervisor.command_line import Launch, arguments
from korora.errors import ToolError
from korora.lab.layout import LabHost
from korora.lab.namespaces import in_namespace
from korora.model.vm import VmDefinition

_START_S: Final = 30.0
_RETRY_S: Final = 0.001


class PlainVm:
    """One QEMU with its swtpm, if it has one, on one host. `end` leaves nothing behind."""

    def __init__(self, folder: Path, host: LabHost, definition: VmDefinition, *, incoming: bool) -> None:
        self.host = host
        self._folder = folder
        self._used_s = 0.0  # by processes that have ended
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "tpm").mkdir(parents=True, mode=0o700)
        try:
            self._start(definition, incoming=incoming)
            self.qmp = Qmp(folder / "qmp.sock")
        except BaseException:
            self._end_processes()
            raise

    def cpu_s(self) -> float:
        """What both processes have used so far, also once they have ended."""
        return self._used_s + tree_cpu_s(child.pid for child in self._children.values())

    def end(self) -> None:
        """End both, and keep what they used. Idempotent."""
        if self._children:
            with contextlib.suppress(ToolError, OSError):
                self.qmp("quit")
            self.qmp.close()
            self._end_processes()

    def _start(self, definition: VmDefinition, *, incoming: bool) -> None:
        tpm = self._folder / "tpm.sock"
        if definition.vtpm:
            self._start_swtpm(tpm)
        in_namespace(self.host.netns, lambda: self._start_qemu(definition, tpm, incoming=incoming))

    def _start_swtpm(self, tpm: Path) -> None:
        state = f"dir={self._folder}/tpm,mode=0600"
        self._spawn(
            "swtpm", ["swtpm", "socket", "--tpm2", "--tpmstate", state, "--ctrl", f"type=unixio,path={tpm}"]
        )
        limit = time.monotonic() + _START_S
        while not tpm.exists():
            if time.monotonic() > limit:
                raise ToolError("swtpm does not start", kind="bench-swtpm")
            time.sleep(_RETRY_S)

    def _start_qemu(self, definition: VmDefinition, tpm: Path, *, incoming: bool) -> None:
        with network.taps(definition.nics) as taps:
            launch = Launch(self._folder, tpm, taps, incoming)
            # Without -S: whoever moves a VM by QEMU alone lets the destination run it at once.
            words = [word for word in arguments(definition, launch) if word != "-S"]
            self._spawn("qemu", ["qemu-system-x86_64", *words], taps)

    def _spawn(self, name: str, command: Sequence[str], keep: Sequence[int] = ()) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            self._children[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                pass_fds=tuple(keep),
            )

    def _end_processes(self) -> None:
        for name in ("qemu", "swtpm"):  # swtpm ends by itself when QEMU hangs up
            child = self._children.pop(name, None)
            if child is not None:
                self._used_s += _awaited(child)
        shutil.rmtree(self._folder, ignore_errors=True)


def _awaited(child: subprocess.Popen[bytes]) -> float:
    """Its CPU seconds, once it has ended; after some patience by force."""
    limit = time.monotonic() + _START_S
    while True:
        pid, status, used = os.wait4(child.pid, os.WNOHANG)
        if pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return used.ru_utime + used.ru_stime
        if time.monotonic() > limit:
            os.kill(child.pid, signal.SIGKILL)
        time.sleep(_RETRY_S * 5)
