"""The guest as its own witness: what it reports before and after, and what its ticks say in between.

Everything here comes from inside the guest, by UDP to the lab's observer; no daemon is asked.
Limit: a guest under emulation answers slowly, and a tick is one datagram: a machine under load may drop one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from korora.lab.observer import Observer, Tick, TickReport, judge

# UDP promises nothing; a datagram that the host dropped under load is not a guest that lost time.
TOLERATED_LOSS = 2
_SHOWN = 24


@dataclass(frozen=True, slots=True)
class Account:
    """The guest's own report, as far as the story needs it. `errors` since boot, in the memory pattern."""

    boot: str
    uname: str
    firmware: str
    uptime_s: float
    ek: str
    pcr10: str
    pcr16: str
    nv: str
    pages: int
    errors: int
    disk_errors: int
    secret: str

    @property
    def identity(self) -> tuple[tuple[str, str], ...]:
        """What makes the vTPM, and this run of the guest, the one that it is."""
        return (
            ("EK name", self.ek),
            ("PCR 10", self.pcr10),
            ("PCR 16", self.pcr16),
            ("NV secret", self.nv),
            ("boot id", self.boot),
        )


def account_of(report: Mapping[str, Any]) -> Account:
    """From a report of the guest (docs/lab.md lists its keys)."""
    disk = report.get("disk") or {}
    return Account(
        boot=str(report["boot"]),
        uname=str(report["uname"]),
        firmware=str(report["firmware"]),
        uptime_s=float(report["uptime_ms"]) / 1000,
        ek=str(report["ek_name"]),
        pcr10=str(report["pcr10"]),
        pcr16=str(report["pcr16"]),
        nv=str(report["nv"]),
        pages=int(report["pages"]),
        errors=int(report["errors"]) + int(report["errors_ever"]),
        disk_errors=int(disk.get("errors", 0)),
        secret=str(report["secret"]).removeprefix("korora-secret: "),
    )


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a guest that was watched for a while."""

    said: Account
    ticks: TickReport
    standstill_s: float

    def complaints(self, before: Account) -> list[str]:
        """Everything that is not as it was; empty when nothing was lost."""
        found = [f"{name} changed" for name in changed(before, self.said)]
        if self.said.errors:
            found.append(f"{self.said.errors} pattern errors")
        if self.said.disk_errors:
            found.append(f"{self.said.disk_errors} disk errors")
        if self.said.secret != before.secret:
            found.append(f"its text says: {self.said.secret}")
        return found + tick_complaints(self.ticks)


def changed(before: Account, after: Account) -> list[str]:
    """The names in `identity` that have another value now."""
    pairs = zip(before.identity, after.identity, strict=True)
    return [name for (name, old), (_, new) in pairs if old != new or not old]


def standstill_s(ticks: Sequence[Tick]) -> float:
    """How long the guest was stopped, at most: time passed outside, and not on its own clock.

    A silence in which its clock went on is another thing: it was not stopped, but got no processor.
    """
    pairs = [(before, after) for before, after in pairwise(ticks) if before.boot == after.boot]
    stood = [
        (after.arrived_s - before.arrived_s) - (after.guest_s - before.guest_s) for before, after in pairs
    ]
    return max((0.0, *stood))


def tick_complaints(ticks: TickReport) -> list[str]:
    found = [f"{ticks.lost} ticks lost"] if ticks.lost > TOLERATED_LOSS else []
    found += [f"{ticks.doubled} ticks doubled"] if ticks.doubled else []
    return found + ([f"{ticks.reboots} reboots"] if ticks.reboots else [])


def tick_words(ticks: TickReport) -> str:
    return f"{ticks.received} ticks, {ticks.lost} lost, {ticks.doubled} doubled"


def comparison(before: Account, after: Account, places: tuple[str, str]) -> Sequence[Sequence[str]]:
    """Rows for a table: each value of `identity` at both places, and whether it is the same."""
    rows = [("", f"on {places[0]}, before", f"on {places[1]}, after", "")]
    for (name, old), (_, new) in zip(before.identity, after.identity, strict=True):
        rows.append((name, short(old), short(new), "same" if old == new else "CHANGED"))
    return rows


def short(value: str, characters: int = _SHOWN) -> str:
    """The beginning of a long value: enough for an eye to compare."""
    return value if len(value) <= characters else f"{value[:characters]}…"


@dataclass(slots=True)
class Witness:
    """Watches one guest. `watch` begins a stretch, `look` ends it."""

    observer: Observer
    address: str
    since_s: float = 0.0

    def await_boot(self, deadline_s: float) -> float:
        """Wait for the first tick; the seconds it took. ToolError when none comes."""
        begun = time.monotonic()
        self.observer.wait_for_tick(self.address, deadline_s=deadline_s)
        return time.monotonic() - begun

    def watch(self) -> None:
        self.since_s = time.monotonic()

    def look(self, deadline_s: float = 60.0) -> Look:
        """Its report now, and its ticks since `watch`. ToolError when it is silent."""
        self.observer.wait_for_tick(self.address, deadline_s=deadline_s)
        said = account_of(self.observer.report(self.address, deadline_s))
        ticks = self.observer.ticks(self.address, self.since_s)
        return Look(said, judge(ticks), standstill_s(ticks))
