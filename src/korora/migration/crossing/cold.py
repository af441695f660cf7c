"""A stopped VM moves: no memory, no devices, only its vTPM at rest and what lies beside it (W1).

The same phases, statements and ownership as for a running one; there is no stream, so nothing is paused and
no memory is proved or wiped.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from korora.errors import IntegrityError
from korora.migration.crossing.first_run import FirstRun, Ran
from korora.migration.crossing.subject import Subject
from korora.migration.known import known
from korora.migration.setting import Setting
from korora.model.crossing import Carried
from korora.model.identity import Secret
from korora.model.vm import VmDefinition
from korora.ports.vtpm import BlobBinding, Rested, VtpmAgent
from korora.supervision.guests import Guests


async def take_out(
    at: Setting, vm: Subject, key: Secret | None, binding: BlobBinding
) -> tuple[Carried, bytes | None]:
    """The source's end: the vTPM's state, encrypted. What is at rest here stays until the wipe."""
    if not vm.definition.vtpm or key is None:
        return Carried((), 0, 0, None, None), None
    rested = await at.vtpms.carry_out(vm.definition.name, vm.directory, key, binding)
    return _carried(rested), rested.state


class ColdInbound:
    """The destination's end: the vTPM's state, verified and put to rest."""

    def __init__(self, vtpms: VtpmAgent, directory: Path, definition: VmDefinition) -> None:
        self._vtpms = vtpms
        self._directory = directory
        self._definition = definition

    async def put(self, key: Secret | None, binding: BlobBinding, state: bytes | None) -> Carried:
        """IntegrityError when a vTPM should have come and did not, or is not authentic; then `abandon`."""
        name = self._definition.name
        if not self._definition.vtpm:
            return Carried((), 0, 0, None, None)
        if state is None:
            raise IntegrityError(f"the vTPM of {name} did not come", kind="vtpm-blob")
        return _carried(await self._vtpms.carry_in(name, self._directory, known(key), binding, state))

    async def run(self) -> FirstRun:
        """It was stopped, and stays so."""
        return FirstRun(Ran.YES)

    async def is_there(self) -> bool:
        return True

    def admit(self, _guests: Guests, _epoch: int) -> None:
        """It is this host's now, and stopped: there is nothing to supervise."""

    async def abandon(self, _why: str) -> None:
        """Undo: nothing of the VM is left here. Idempotent. A KororaError says that something is."""
        if self._definition.vtpm:
            await self._vtpms.wipe(self._definition.name, self._directory)
        await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)


def _carried(rested: Rested) -> Carried:
    size = len(rested.state)
    return Carried((), size, size, rested.blobs, rested.identity)
