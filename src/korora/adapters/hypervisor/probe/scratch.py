"""A QEMU for asking questions: short-lived, in a temporary directory, killed whatever happens."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from korora.adapters.hypervisor.command_line import SANDBOX, qmp_monitor
from korora.adapters.hypervisor.process import LOG, Process, end, last_words, spawn
from korora.adapters.hypervisor.qmp import Qmp
from korora.errors import ToolError

START_DEADLINE_S = 20.0
_FRAME = ("-nodefaults", "-no-user-config", "-display", "none", "-S", "-sandbox", SANDBOX)


@contextlib.asynccontextmanager
async def scratch_qemu(binary: str, args: Sequence[str]) -> AsyncIterator[Qmp]:
    """A paused QEMU with these arguments, answering QMP. ToolError with its last words if it does not."""
    with tempfile.TemporaryDirectory(prefix="korora-probe-") as name:
        directory = Path(name)
        spawned = spawn(binary, [*_FRAME, *qmp_monitor("qmp"), *args], directory, directory / LOG, ())
        process = Process(spawned.pid)
        try:
            qmp = await _answering(directory, process)
            try:
                yield qmp
            finally:
                await qmp.close()
        finally:
            await end(process)
            process.release()


async def _answering(directory: Path, process: Process) -> Qmp:
    try:
        return await Qmp.connect(directory / "qmp.sock", START_DEADLINE_S, lambda: not process.is_gone)
    except ToolError as error:
        words = last_words(directory)
        raise ToolError(
            f"QEMU does not start{': ' + words if words else ''}",
            kind="qemu-probe",
            remedy="run `qemu-system-x86_64 -M none -display none -S` by hand to see why",
        ) from error
