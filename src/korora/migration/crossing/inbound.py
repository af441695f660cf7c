"""The destination's end of the crossing: an empty, paused VM that is filled, and stays paused.

Promise: its memory is proved clean before the first byte; `abandon` leaves nothing of the VM here.
"""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from korora.agents.dataplane import DestinationRelay
from korora.errors import IntegrityError, KororaError, PeerError, RefusedError, ToolError
from korora.migration.crossing.first_run import FirstRun, first_run, is_there
from korora.migration.crossing.vigil import while_watching
from korora.migration.known import known
from korora.model.crossing import Carried
from korora.model.evidence import CleanMemoryProof
from korora.model.identity import Secret
from korora.model.vm import RunState, VmDefinition
from korora.ports.hypervisor import GuestMemory, Hypervisor, Machine, Place, StreamSettings, StreamState
from korora.ports.vtpm import BlobBinding, Vtpm, VtpmAgent
from korora.supervision.guests import Guests

SOCKET_NAME: Final = "in.sock"
_REASON_S: Final = 2.0


class Inbound:
    """One crossing into one directory."""

    def __init__(self, hypervisor: Hypervisor, vtpms: VtpmAgent, directory: Path) -> None:
        self._hypervisor = hypervisor
        self._vtpms = vtpms
        self._directory = directory
        self._relay: DestinationRelay | None = None
        self._fault_in: asyncio.Task[bool] | None = None
        self._definition: VmDefinition | None = None
        self._not_ours = False
        self.machine: Machine | None = None
        self.vtpm: Vtpm | None = None
        self.place = Place(directory, None)

    async def prepare(self, definition: VmDefinition) -> CleanMemoryProof | None:
        """Start the empty VM; its memory is looked at before anything can be in it.

        IntegrityError(kind="memory-not-clean") if something is; on failure, call `abandon`.
        """
        self._definition = definition
        if definition.vtpm:
            self.vtpm = await self._empty_vtpm(definition)
        self.place = Place(self._directory, self.vtpm.socket if self.vtpm else None)
        await self._start_machine(definition)
        memory = self._machine().memory
        if memory is None:
            return None
        proof = await asyncio.to_thread(memory.prove_clean)
        if not proof.clean:
            raise IntegrityError(
                f"the memory given to {definition.name} on this host is not clean:"
                f" {proof.allocated_bytes} bytes of it were written before",
                kind="memory-not-clean",
                remedy="nothing was sent; look for what touches QEMU's memory on the destination",
            )
        self._fault_in = asyncio.create_task(_fault_in(memory))
        return proof

    async def start(
        self, relay: DestinationRelay, settings: StreamSettings, key: Secret | None, binding: BlobBinding
    ) -> None:
        """Open for the stream."""
        machine = self._machine()
        self._relay = relay
        if self.vtpm is not None:
            await (self.vtpm.accept_under(key, binding) if key is not None else self.vtpm.accept_bare())
        await machine.listen(self.socket, settings)
        relay.start()

    @property
    def allocated(self) -> bool:
        """Whether the VM is known to have all the memory it will take."""
        task = self._fault_in
        if task is None or not task.done() or task.cancelled():
            return False
        return task.exception() is None and task.result()

    @property
    def socket(self) -> Path:
        return self._directory / SOCKET_NAME

    async def loaded(self) -> Carried:
        """Wait until all has arrived and verified. The VM is paused; nothing of it has run here."""
        assert self._relay is not None  # noqa: S101 `start` was called
        await while_watching(self._until_complete(), self._changed_on_the_way(self._relay))
        report = await self._relay.finished()
        if self.vtpm is None or known(self._definition).adopted:  # the source could not look at its vTPM
            return Carried(report.roots, report.payload_bytes, report.wire_bytes, None, None)
        blobs, identity = await self.vtpm.moved(), await self.vtpm.identity()
        return Carried(report.roots, report.payload_bytes, report.wire_bytes, blobs, identity)

    async def run(self) -> FirstRun:
        """The first run after the move."""
        return await first_run(self._machine())

    async def is_there(self) -> bool:
        """Whether what arrived is still here. ToolError when its process does not say."""
        return await is_there(self._machine())

    def admit(self, guests: Guests, epoch: int) -> None:
        """Hand the running VM to this host's supervision. The journal says owner(epoch) already."""
        definition = known(self._definition)
        guests.admit(definition, self._machine(), self.vtpm, self.place, epoch)

    async def abandon(self, why: str) -> None:
        """Undo: nothing of the VM is left here. Idempotent. A KororaError says that something is."""
        if self._relay is not None:
            self._relay.abort(why)
        if self._fault_in is not None:
            self._fault_in.cancel()
        if self._not_ours:
            return
        if self.machine is not None:
            await self.machine.quit()
        if self._definition is not None and self._definition.vtpm:
            await self._vtpms.wipe(self._definition.name, self._directory)
        await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)

    async def _start_machine(self, definition: VmDefinition) -> None:
        """While the vTPM still starts: its socket waits. If both fail, the vTPM's reason explains both."""
        starting = asyncio.create_task(self._hypervisor.start(definition, self.place, incoming=True))
        try:
            if self.vtpm is not None:
                await self.vtpm.ready()
        except BaseException:
            with suppress(KororaError):
                self.machine = await starting  # for `abandon`
            raise
        self.machine = await starting

    def _machine(self) -> Machine:
        assert self.machine is not None  # noqa: S101 `prepare` was called
        return self.machine

    async def _empty_vtpm(self, definition: VmDefinition) -> Vtpm:
        try:
            return await self._vtpms.start_incoming(definition.name, self._directory)
        except RefusedError:
            self._not_ours = True  # what lies there was there before
            raise

    async def _until_complete(self) -> None:
        """A hypervisor that cannot load what comes often ends instead of saying so."""
        try:
            loaded = await self._has_loaded()
        except ToolError as ended:
            raise await self._why_it_failed(ended) from ended
        if not loaded:
            raise await self._why_it_failed(_not_loaded())

    async def _has_loaded(self) -> bool:
        async for state in self._machine().stream_states():
            if state in {StreamState.FAILED, StreamState.CANCELLED}:
                return False
        return await self._machine().run_state() is not RunState.STOPPED

    async def _changed_on_the_way(self, relay: DestinationRelay) -> None:
        """Raise at once what only this side can know; the hypervisor would take its time to notice."""
        try:
            await relay.finished()
        except IntegrityError:
            raise
        except KororaError:
            return  # whatever else ended the stream, `_until_complete` finds the nearest reason

    async def _why_it_failed(self, otherwise: ToolError) -> KororaError:
        """The relay's or the interposer's reason, if they have one: QEMU only says that it ended."""
        assert self._relay is not None  # noqa: S101 `start` was called
        try:
            await asyncio.wait_for(self._relay.finished(), _REASON_S)
        except (IntegrityError, PeerError) as error:
            return error
        except (KororaError, TimeoutError):
            pass
        if self.vtpm is not None:
            try:
                await self.vtpm.moved()
            except IntegrityError as error:
                if error.kind == "vtpm-blob":  # not only missing, as when QEMU died of something else
                    return error
            except KororaError:
                pass
        return otherwise


def _not_loaded() -> ToolError:
    return ToolError(
        "the destination's hypervisor could not load the VM",
        kind="stream-failed",
        remedy="see qemu.log of this VM on the destination",
    )


async def _fault_in(memory: GuestMemory) -> bool:
    """Whether it is all there. A machine that cannot do it ahead does it while the stream fills it."""
    try:
        await asyncio.to_thread(memory.fault_in)
    except KororaError:
        return False
    return True
