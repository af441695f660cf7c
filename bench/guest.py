"""The guest that every way moves: the same definition, workload and devices; only name and address differ."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from bench.figures import Ticks

from korora.errors import ToolError
from korora.lab.guest.image import guest_image
from korora.lab.layout import Layout
from korora.lab.machines import LabMachine, Workload, write_machine
from korora.lab.observer import Observer
from korora.model.definition import parse_definition
from korora.model.vm import VmDefinition

FILLED_PART: Final = 0.75
WORKING_SET_MIB: Final = 16
READY_S: Final = 300.0
SETTLE_S: Final = 2.0
AFTERMATH_S: Final = 0.5
"""How long after the end ticks are still counted: a second copy of the guest would show by then."""


@dataclass(frozen=True, slots=True)
class Fill:
    """What the guest's memory holds: three quarters of it, and a working set of 16 MiB."""

    ram_mib: int
    kind: str
    dirty_rate_mib: int

    def workload(self) -> Workload:
        return Workload(
            dirty_mib=WORKING_SET_MIB,
            dirty_rate_mib=self.dirty_rate_mib,
            fill_mib=int(self.ram_mib * FILLED_PART) - WORKING_SET_MIB,
            fill=self.kind,
            verify_rate_mib=0,
        )


def define(layout: Layout, name: str, number: int, fill: Fill, accelerator: str) -> VmDefinition:
    """Write the definition beside the lab's own, with its disk, and read it back."""
    machine = LabMachine(
        name, number, memory=f"{fill.ram_mib}M", workload=fill.workload(), accelerator=accelerator
    )
    path = write_machine(layout, machine, guest_image())
    return parse_definition(path.read_text(), str(path))


@dataclass(frozen=True, slots=True)
class Seen:
    """The guest from outside, from the order on."""

    downtime_ms: float
    ticks: Ticks


class Watched:
    """One guest, by its ticks."""

    def __init__(self, observer: Observer, ip: str) -> None:
        self._observer = observer
        self._ip = ip

    def wait_until_ready(self) -> None:
        """It ticks, and it ticks only once its memory is filled."""
        self._observer.wait_for_tick(self._ip, READY_S)

    def settle(self) -> None:
        """It has been held, or has moved: let it tick evenly again before it is measured."""
        since = time.monotonic()
        while time.monotonic() < since + SETTLE_S:
            self._observer.wait_for_tick(self._ip, READY_S)
            time.sleep(0.1)

    def seen_since(self, since_s: float) -> Seen:
        time.sleep(AFTERMATH_S)
        found = self._observer.judge(self._ip, since_s)
        ticks = Ticks(found.received, found.lost, found.doubled, found.reordered)
        return Seen(round(found.worst.downtime_s * 1000, 1), ticks)

    def refuse_damage(self) -> None:
        """ToolError when the guest found a page of its pattern changed, or its TPM or secret gone."""
        told = self._observer.report(self._ip, READY_S)
        wrong = {key: told[key] for key in ("errors", "errors_ever") if told[key]}
        if wrong or not told["tpm"] or not told["secret_intact"]:
            raise ToolError(f"the guest did not survive whole: {told}", kind="guest-damaged")
