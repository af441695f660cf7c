"""Wipes disks of VMs that left this host once they were kept for long enough, or are too many (W2).

Promise: what is wiped is told in the log, with how; what cannot be wiped is told, stays, and is tried again.
Limit: looked at every LOOK_S, and what is kept meanwhile may pass the bound for as long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import structlog

from korora.model.configuration import KeptBounds
from korora.model.evidence import WipeStep
from korora.model.identity import VmName
from korora.policy.keeping import overdue
from korora.ports.clock import Clock
from korora.ports.kept_disks import KeptDisks

LOOK_S: Final = 600.0

_log = structlog.get_logger("korora.kept")


class KeptExpiry:
    """Part of the daemon: `start`, `stop`."""

    def __init__(self, kept: KeptDisks, clock: Clock, bounds: KeptBounds) -> None:
        self._kept = kept
        self._clock = clock
        self._bounds = bounds
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._watch(), name="kept disks")

    async def stop(self) -> None:
        """Begin no further wipe. One that is under way ends in its thread."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def look(self) -> None:
        """Wipe what is overdue now."""
        try:
            _tell("a crash had cut its wipe short", await self._kept.finish())
        except OSError as error:
            _log.warning("a kept disk is half wiped", reason=error.strerror or str(error))
        told = await asyncio.to_thread(self._kept.all)
        for one, why in overdue(told, self._bounds, self._clock.now()):
            try:
                _tell(why, await self._kept.drop(VmName(one.vm), one.name), vm=one.vm, disk=one.name)
            except OSError as error:
                reason = error.strerror or str(error)
                _log.warning("a kept disk is not wiped", vm=one.vm, disk=one.name, why=why, reason=reason)

    async def _watch(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:  # who watches must not end unseen
                _log.exception("watch-failed", watch="kept disks")
            await asyncio.sleep(LOOK_S)


def _tell(why: str, steps: Sequence[WipeStep], **of: str) -> None:
    for step in steps:
        proof = {"method": step.method, "bytes": step.bytes, "verified": step.verified, "note": step.note}
        _log.info("a kept disk is wiped", what=step.what, why=why, **of, **proof)
