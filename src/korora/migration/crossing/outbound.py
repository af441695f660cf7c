"""The source's end of the crossing: the hypervisor's stream into the relay, the vTPM under its own key.

Promise: `abandon`, at any moment before the release, leaves the VM as it was before `start`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from korora.agents.dataplane import SourceRelay
from korora.errors import IntegrityError, KororaError, PeerError, ToolError
from korora.migration.crossing.convergence import downtime_allowed_ms
from korora.model.crossing import Carried
from korora.model.evidence import BlobDigests, VtpmIdentity
from korora.model.identity import Secret
from korora.model.meter import Reading
from korora.model.vm import RunState
from korora.ports.clock import Clock
from korora.ports.hypervisor import Machine, StreamSettings, StreamState
from korora.ports.vtpm import BlobBinding, Vtpm

SWITCHOVER_DEADLINE_S: Final = 60.0
"""From the guest's pause to the hypervisor's word that all was sent; past it the guest resumes here."""
_READING_S: Final = 0.2
_REASON_S: Final = 2.0

Read = Callable[[Reading], Awaitable[None]]
SOCKET: Final = "out.sock"
"""In the VM's folder, from the relay's beginning until the hypervisor has come to it."""


class Outbound:
    """One crossing of one VM with a process."""

    def __init__(
        self,
        machine: Machine,
        vtpm: Vtpm | None,
        relay: SourceRelay,
        socket: Path,
        settings: StreamSettings,
        clock: Clock,
    ) -> None:
        self._machine = machine
        self._vtpm = vtpm
        self._relay = relay
        self._socket = socket
        self._settings = settings
        self._clock = clock
        self._ran = False
        self._begun = False
        self._allowed_ms = 0

    @property
    def bytes_on_wire(self) -> int:
        return self._relay.bytes_on_wire

    async def start(self, key: Secret | None, binding: BlobBinding, *, suspend: bool) -> None:
        """Pre-copy begins. With `suspend` the VM is paused first (offline mode)."""
        self._ran = await self._machine.run_state() is RunState.RUNNING
        self._begun = True
        if suspend and self._ran:
            await self._machine.pause()
        if self._vtpm is not None and key is not None:
            await self._vtpm.send_under(key, binding)
        self._relay.start()
        self._allowed_ms = downtime_allowed_ms(0, self._settings.downtime_limit_ms)
        await self._machine.send(self._socket, replace(self._settings, downtime_limit_ms=self._allowed_ms))

    async def until_switchover(self, read: Read) -> None:
        """Returns with the VM paused and almost everything sent."""
        reading = asyncio.create_task(self._keep_reading(read))
        try:
            await self._until(StreamState.PRE_SWITCHOVER)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def switch_over(self) -> Carried:
        """Send the rest. The VM stays paused here. ToolError(kind="switchover-timeout") past the deadline."""
        try:
            return await self._send_the_rest()
        except TimeoutError as error:
            raise ToolError(
                f"the last of the VM did not cross within {SWITCHOVER_DEADLINE_S:g} s of its pause",
                kind="switchover-timeout",
                remedy="see that the network between the hosts is up to it, and qemu.log of this VM on both",
            ) from error

    async def _send_the_rest(self) -> Carried:
        async with asyncio.timeout(SWITCHOVER_DEADLINE_S):
            done = asyncio.create_task(self._until(StreamState.COMPLETED))
            try:
                await self._machine.switch_over()
                await done
                report, (blobs, identity) = await asyncio.gather(self._relay.finished(), self._vtpm_sent())
            finally:
                done.cancel()
        return Carried(report.roots, report.payload_bytes, report.wire_bytes, blobs, identity)

    async def abandon(self, why: str) -> None:
        """Undo: the VM is as it was. Idempotent. A KororaError says that it does not run, and should."""
        self._relay.abort(why)
        if not self._begun:
            return
        with suppress(KororaError):  # a stream that has completed or failed already cannot be cancelled
            await self._machine.cancel_stream()
        if self._vtpm is not None:
            with suppress(KororaError):  # a VM without its vTPM is better off than one that stands still
                await self._vtpm.stay()
        if self._ran and await self._machine.run_state() not in {RunState.RUNNING, RunState.STOPPED}:
            await self._machine.resume()

    async def _vtpm_sent(self) -> tuple[BlobDigests | None, VtpmIdentity | None]:
        if self._vtpm is None:
            return None, None
        return await self._vtpm.moved(), await self._vtpm.identity()

    async def _until(self, wanted: StreamState) -> None:
        async for state in self._machine.stream_states():
            if state is wanted or (
                wanted is StreamState.PRE_SWITCHOVER and state in {StreamState.DEVICE, StreamState.COMPLETED}
            ):
                return
            if state in {StreamState.FAILED, StreamState.CANCELLED, StreamState.COMPLETED}:
                raise await self._why_it_failed(state)
        raise await self._why_it_failed(StreamState.FAILED)

    async def _why_it_failed(self, state: StreamState) -> KororaError:
        """The relay's reason, if it has one: the hypervisor only knows that its socket broke."""
        try:
            await asyncio.wait_for(self._relay.finished(), _REASON_S)
        except (IntegrityError, PeerError) as error:
            return error
        except (KororaError, TimeoutError):
            pass
        reason = (await self._machine.stream_status()).reason
        return ToolError(
            f"the hypervisor's stream {state}{': ' + reason if reason else ''}",
            kind="stream-failed",
            remedy="see qemu.log of this VM on both hosts",
        )

    async def _keep_reading(self, read: Read) -> None:
        while True:
            await asyncio.sleep(_READING_S)
            with suppress(KororaError):  # a busy hypervisor may miss a beat
                status = await self._machine.stream_status()
                await self._allow(downtime_allowed_ms(status.round, self._settings.downtime_limit_ms))
                await read(
                    Reading(
                        self._clock.monotonic(),
                        status.transferred_bytes,
                        status.remaining_bytes,
                        status.dirty_rate_bytes_per_s,
                        status.round,
                    )
                )

    async def _allow(self, downtime_ms: int) -> None:
        if downtime_ms != self._allowed_ms:
            await self._machine.allow_downtime(downtime_ms)
            self._allowed_ms = downtime_ms
