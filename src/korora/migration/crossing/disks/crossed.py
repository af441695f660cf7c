"""What one host saw of the disks that crossed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from korora.agents.dataplane import DestinationRelay, RelayReport, SourceRelay
from korora.model.crossing import Carried
from korora.model.storage import DiskContent


@dataclass(frozen=True, slots=True)
class Crossed:
    """What one host saw: the disks as they are with the VM paused, and what crossed for them."""

    contents: tuple[DiskContent, ...]
    reports: tuple[RelayReport, ...]

    def added_to(self, carried: Carried) -> Carried:
        """The streams of memory and disks, as one."""
        return Carried(
            (*carried.roots, *(root for report in self.reports for root in report.roots)),
            carried.payload_bytes + sum(report.payload_bytes for report in self.reports),
            carried.wire_bytes + sum(report.wire_bytes for report in self.reports),
            carried.blobs,
            carried.vtpm,
        )


async def reports_of(relays: Sequence[SourceRelay] | Sequence[DestinationRelay]) -> tuple[RelayReport, ...]:
    return tuple(await asyncio.gather(*(relay.finished() for relay in relays)))
