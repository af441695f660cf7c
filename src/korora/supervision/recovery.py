"""Find the VMs that an earlier daemon left running. Start nothing, and take no silence for an end.

Promise: while it cannot be told whether a VM's process lives, the VM is *unclear*, and nothing is begun with
it: a second process would write to the same disk. Limit: what does not answer is asked again and again; that
it is dead is for its administrator to see to. An adopted VM whose socket is silent counts as ended: Korora
never starts one.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from korora.errors import KororaError, ToolError
from korora.model.identity import VmName
from korora.ports.hypervisor import Hypervisor
from korora.ports.journal import Journal, VmRecord
from korora.ports.vtpm import VtpmAgent
from korora.supervision import refusals
from korora.supervision.live import find_again
from korora.supervision.roster import Roster

PATIENT_TRIES = 4  # before the daemon goes on without an answer
RETRY_S = 0.5
LATER_RETRY_S = 10.0

_log = structlog.get_logger("korora.supervision")


class Recovery:
    """Once per life of the daemon: `run`, then `check` before anything is begun with a VM."""

    def __init__(
        self,
        roster: Roster,
        hypervisor: Hypervisor,
        vtpm_agent: VtpmAgent,
        journal: Journal,
        vms_directory: Path,
    ) -> None:
        self._roster = roster
        self._hypervisor = hypervisor
        self._vtpm_agent = vtpm_agent
        self._journal = journal
        self._vms_directory = vms_directory
        self._unclear: dict[VmName, KororaError] = {}
        self._seekers: dict[VmName, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Look for every VM; those that stay unclear are looked for in the background from then on."""
        await asyncio.gather(*(self._seek(record) for record in self._journal.vms()))
        for name in self._unclear:
            self._seekers[name] = asyncio.create_task(self._seek_on(name), name=f"search for {name}")

    def unclear(self, name: VmName) -> bool:
        return name in self._unclear

    def check(self, name: VmName) -> None:
        """ToolError(kind="unresponsive") while it cannot be told whether the VM's process lives."""
        if name in self._unclear:
            raise refusals.unresponsive(name, self._unclear[name])

    def close(self) -> None:
        for seeker in self._seekers.values():
            seeker.cancel()

    async def _seek(self, record: VmRecord) -> None:
        for _ in range(PATIENT_TRIES):
            if await self._found(record) or not isinstance(self._unclear.get(record.name), ToolError):
                return
            await asyncio.sleep(RETRY_S)  # a tool may be slow, or just about to end

    async def _seek_on(self, name: VmName) -> None:
        while self.unclear(name):
            await asyncio.sleep(LATER_RETRY_S)
            record = self._journal.vm(name)
            if record is None or await self._found(record):
                self._unclear.pop(name, None)

    async def _found(self, record: VmRecord) -> bool:
        """Whether it is clear now how this VM stands."""
        directory = self._vms_directory / record.name
        try:
            found = await find_again(record, directory, self._hypervisor, self._vtpm_agent)
        except KororaError as problem:
            if record.name not in self._unclear:
                _log.error("vm-unclear", vm=record.name, kind=problem.kind, error=problem.message)
            self._unclear[record.name] = problem
            return False
        self._unclear.pop(record.name, None)
        if found.live is not None:
            self._roster.reenter(found.live)
            _log.info("vm-found", vm=record.name, ownership=record.ownership, vtpm_lost=found.live.vtpm_lost)
            return True
        try:
            await self._roster.settle_absent(found, directory)
        except KororaError as problem:  # the VM is stopped for certain; its vTPM's custody is another matter
            _log.error("vm-not-settled", vm=record.name, kind=problem.kind, error=problem.message)
        return True
