"""Follow a VM's measured boots as the guest tells them: learn the first, appraise every later one (A1).

Promise: no boot is called trusted whose event log was not appraised against the vTPM's own PCRs.
Limit: the first boot is trusted because it was the first; of a guest that writes no event log only the PCRs
are compared, some time after it started.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import structlog

from korora.errors import KororaError
from korora.ports.clock import Clock
from korora.ports.vtpm import Vtpm
from korora.supervision.boots.appraiser import BootAppraiser
from korora.supervision.boots.eventlog import GuestLogs
from korora.supervision.boots.record import (
    EVENT_LOG_FILE,
    BootVerdict,
    BootWord,
    boot_pcrs,
    read_baseline,
    read_logs,
    read_verdict,
    write_baseline,
    write_verdict,
)

SILENT_AFTER_S = 300.0
POLL_S = 1.0

_log = structlog.get_logger("korora.supervision")


class BootWatch:
    """One VM's boots. `run` is a task's body; cancel it when the VM is gone or moves away."""

    def __init__(
        self,
        vm: str,
        directory: Path,
        vtpm: Vtpm,
        appraiser: BootAppraiser,
        clock: Clock,
        *,
        silent_after_s: float = SILENT_AFTER_S,
        poll_s: float = POLL_S,
    ) -> None:
        self._vm = vm
        self._directory = directory
        self._vtpm = vtpm
        self._appraiser = appraiser
        self._clock = clock
        self._silent_after_s = silent_after_s
        self._poll_s = poll_s
        self._seen_bytes = -1
        self._looking = asyncio.Lock()
        self.verdict = read_verdict(directory) or BootVerdict(BootWord.WAITING)

    async def run(self) -> None:
        """Judge each boot as its log arrives, until cancelled."""
        began = self._clock.monotonic()
        while True:
            silent = self._clock.monotonic() - began > self._silent_after_s
            try:
                await self.look(silent=silent)
            except KororaError as problem:
                # The next look tries again: a vTPM that is busy or restarting is no verdict.
                self._seen_bytes = -1
                _log.warning("boot-not-judged", vm=self._vm, error=problem.message)
            await asyncio.sleep(self._poll_s)

    async def look(self, *, silent: bool = False) -> None:
        """Judge the newest boot if the file has grown; a `silent` one, if not yet judged, by PCRs alone.

        ToolError when the vTPM cannot be read.
        """
        async with self._looking:
            await self._look_at_logs()
            if silent and self.verdict.word is BootWord.WAITING:
                await self._judge(None, 0)

    async def _look_at_logs(self) -> None:
        size = await asyncio.to_thread(_size, self._directory / EVENT_LOG_FILE)
        if size == self._seen_bytes:
            return
        logs = await asyncio.to_thread(read_logs, self._directory)
        if logs.fault:
            self._refuse(logs)
        elif logs.latest is not None and len(logs.frames) > self.verdict.boots:
            await self._judge(logs.latest, len(logs.frames))
        self._seen_bytes = size

    async def _judge(self, event_log: bytes | None, boots: int) -> None:
        pcrs = (await self._vtpm.identity()).pcrs
        baseline = read_baseline(self._directory)
        word = BootWord.TRUSTED
        if baseline is None:
            word = BootWord.LEARNED
            baseline, judgement = self._appraiser.learn(event_log, pcrs)
            if judgement.trusted:
                write_baseline(self._directory, baseline)
        else:
            judgement = self._appraiser.appraise(baseline, event_log, pcrs)
        self._record(
            BootVerdict(
                word if judgement.trusted else BootWord.UNTRUSTED,
                judgement.reasons,
                judgement.secure_boot,
                boot_pcrs(pcrs),
                boots,
            )
        )

    def _refuse(self, logs: GuestLogs) -> None:
        if self.verdict.reasons != (logs.fault,):
            self._record(BootVerdict(BootWord.UNTRUSTED, (logs.fault,), boots=len(logs.frames)))

    def _record(self, verdict: BootVerdict) -> None:
        self.verdict = replace(verdict, at=self._clock.now())
        write_verdict(self._directory, self.verdict)
        _log.info("boot-judged", vm=self._vm, verdict=verdict.word, reasons=verdict.reasons)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
