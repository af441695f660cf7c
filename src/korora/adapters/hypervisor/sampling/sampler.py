"""Samples of what a guest asks of its disks, from QEMU's trace events `blk_co_preadv` and `blk_co_pwritev`.

For a moment QEMU writes a line for each request of its block layer into a memory of ours (trace_memory),
where `lines` finds those of the guest. Promise: nothing that the guest does waits for us, and nothing is
traced once a sample is over. When the daemon is killed in the middle of one, the guard turns the trace off,
or else the daemon that finds the VM again (`quiet`); until then QEMU fills the rest of the memory, at most
BOUND_BYTES, and after that one write fails for each request. Limit: each knock counts as a read of no bytes
in query-blockstats. A guest that fills the memory shortens its own samples. Only a QEMU that Korora started
is watched: another's log may be somebody's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from korora.adapters.hypervisor.qmp import Qmp
from korora.adapters.hypervisor.sampling.guard import Guard
from korora.adapters.hypervisor.sampling.lines import EVENTS, knock, requests_of
from korora.adapters.hypervisor.sampling.trace_memory import BOUND_BYTES, TraceMemory
from korora.adapters.hypervisor.snapshot.drives import Drive, named_drives
from korora.adapters.hypervisor.uncancelled import to_its_end
from korora.errors import RefusedError, ToolError
from korora.model.vm import Disk
from korora.ports.sampling import DiskSample

LOOK_S: Final = 0.05
FULL: Final = 0.8


class TraceSampler:
    """A RequestSampler (ports.sampling) of one QEMU."""

    def __init__(
        self,
        qmp: Qmp,
        pid: int,
        disks: Iterable[Disk],
        *,
        guarded: tuple[Guard, Path] | None = None,
        bound_bytes: int = BOUND_BYTES,
    ) -> None:
        """`guarded`: who turns the trace off when we are killed, and the QMP socket by which he does it."""
        self._qmp = qmp
        self._guarded = guarded
        self._pid = pid
        self._disks = tuple(disks)
        self._bound_bytes = bound_bytes
        self._memory: TraceMemory | None = None
        self._alone = asyncio.Lock()

    async def sample(self, seconds: float) -> dict[str, DiskSample]:
        async with self._alone:
            drives = await named_drives(self._qmp, self._disks)
            if not drives:
                return {}
            memory = await to_its_end(self._opened())
            memory.rewind()
            began = time.monotonic()
            self._watch_over()
            try:
                await _switch(self._qmp, on=True)
                await self._knock(drives)
                await self._wait(memory, began + seconds)
            finally:
                await to_its_end(self._over())
            return await asyncio.to_thread(_told, memory.text(), drives, time.monotonic() - began)

    async def close(self) -> None:
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()

    async def _opened(self) -> TraceMemory:
        """The same as long as the daemon holds this QEMU."""
        if self._memory is None:
            self._memory = await TraceMemory.opened(self._qmp, self._pid, self._bound_bytes)
        return self._memory

    def _watch_over(self) -> None:
        if self._guarded is not None:
            guard, qmp = self._guarded
            try:
                guard.begins(qmp)
            except OSError as error:
                raise ToolError(
                    f"no process can be started that ends a sample when the daemon dies: {error.strerror}",
                    kind="not-guarded",
                    remedy="see that this host has memory and processes left",
                ) from error

    async def _over(self) -> None:
        await quiet(self._qmp)
        if self._guarded is not None:  # not if QEMU did not say that it is quiet
            guard, qmp = self._guarded
            guard.ends(qmp)

    async def _knock(self, drives: Sequence[Drive]) -> None:
        """Without waiting for the disk: `aio_read` leaves QEMU's main loop at once, whatever comes of it."""
        for number, drive in enumerate(drives):
            words = f'qemu-io -d {drive.device} "aio_read -q {knock(number)} 0"'
            said = await self._qmp.execute("human-monitor-command", {"command-line": words})
            if said.strip():
                raise RefusedError(
                    f"the disk {drive.name} cannot be told from others: QEMU says {said.strip()}",
                    kind="not-sampled",
                )

    async def _wait(self, memory: TraceMemory, until: float) -> None:
        while memory.used_bytes < FULL * memory.bound_bytes:
            left = until - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(min(left, LOOK_S))


async def quiet(qmp: Qmp) -> None:
    """Trace nothing. Also for what an earlier daemon left on; ToolError when QEMU does not say so."""
    await _switch(qmp, on=False)


async def _switch(qmp: Qmp, *, on: bool) -> None:
    for event in EVENTS:
        try:
            await qmp.execute("trace-event-set-state", {"name": event, "enable": on})
        except ToolError as error:
            if error.kind == "qmp-refused" and not on:
                return  # a QEMU without this event traces nothing
            if error.kind == "qmp-refused":
                raise RefusedError(
                    f"this QEMU tells nothing of what its guest reads and writes: {error.message}",
                    kind="not-sampled",
                    remedy="use a QEMU that was built with the trace backend `log`, as Debian's is",
                ) from error
            raise


def _told(text: bytes, drives: Sequence[Drive], seconds: float) -> dict[str, DiskSample]:
    """A disk whose knock was not seen is left out."""
    seen = requests_of(text, len(drives))
    return {
        drive.name: DiskSample(drive.size, seconds, seen[number].reads, seen[number].writes)
        for number, drive in enumerate(drives)
        if number in seen
    }
