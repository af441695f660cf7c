"""Appraise a guest's measured boot against its own first boot: what is different, by name.

Promise: a boot counts as unchanged only when PCRs 0 to 9 are as they were, and the event log, where there
was one, tells how they came about. Limit: the first boot is trusted for being the first; whether it was good
is for reference values to say. Pure; works with the logs of SeaBIOS and of UEFI firmware.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from korora.errors import IntegrityError, KororaError
from korora.model.evidence import PcrValues
from korora.policy import event_log, measured_boot
from korora.policy.appraisal import check_log
from korora.policy.event_log import EventLog, EventType
from korora.policy.pcrs import well_formed

BOOT_PCRS: Final = tuple(range(10))  # firmware 0–7, boot loader and kernel 8–9


@dataclass(frozen=True, slots=True)
class BootEvent:
    """One remembered measurement; `text` is for people."""

    pcr: int
    sha256: str
    text: str


@dataclass(frozen=True, slots=True)
class BootBaseline:
    """What a good boot measured. `events` is None when the guest gave no event log."""

    pcrs: PcrValues
    events: tuple[BootEvent, ...] | None
    secure_boot: bool | None


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The boot was as the baseline. `secure_boot` is None where there is no word of it."""

    secure_boot: bool | None


@dataclass(frozen=True, slots=True)
class Changed:
    """What was different, a sentence each."""

    findings: tuple[str, ...]
    secure_boot: bool | None


def learn_baseline(pcrs: PcrValues, log: bytes | None) -> BootBaseline:
    """Take this boot for good.

    IntegrityError of kind malformed-event-log or event-log-mismatch when the log is not this boot's.
    """
    values = _boot_values(pcrs)
    if log is None:
        return BootBaseline(values, None, None)
    read = event_log.parse(log)
    check_log(read, values)
    return BootBaseline(values, _remembered(read), measured_boot.secure_boot(read))


def appraise_guest_boot(pcrs: PcrValues, log: bytes | None, baseline: BootBaseline) -> Unchanged | Changed:
    """Compare a boot with the baseline. Never raises for what a guest or its log contains."""
    try:
        boot = learn_baseline(pcrs, log)
    except KororaError as error:
        return Changed((error.message,), None)
    findings = [*_log_absence(boot, baseline), *_differences(boot, baseline)]
    if boot.secure_boot is not baseline.secure_boot and boot.events is not None:
        findings.append(f"Secure Boot {_state(boot.secure_boot)}; it {_state(baseline.secure_boot)} before")
    return Changed(tuple(findings), boot.secure_boot) if findings else Unchanged(boot.secure_boot)


def baseline_json(baseline: BootBaseline) -> bytes:
    """For the file beside the VM; `parse_baseline` reads it back."""
    return msgspec.json.encode(baseline)


def parse_baseline(text: bytes) -> BootBaseline:
    """IntegrityError(kind="malformed-baseline") for anything that `baseline_json` does not write."""
    try:
        read = msgspec.json.decode(text, type=BootBaseline)
        whole = well_formed(read.pcrs) and baseline_json(read) == text
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise _malformed_baseline() from error
    if not whole:
        raise _malformed_baseline()
    return read


def _boot_values(pcrs: PcrValues) -> PcrValues:
    values = {pcr: pcrs[pcr] for pcr in BOOT_PCRS if pcr in pcrs}
    if not well_formed(values):
        raise IntegrityError("the vTPM gave no usable PCR values", kind="event-log-mismatch")
    return values


def _remembered(log: EventLog) -> tuple[BootEvent, ...]:
    return tuple(
        BootEvent(event.pcr, event.sha256.hex(), measured_boot.described(event))
        for event in log.events
        if event.pcr in BOOT_PCRS and event.kind != EventType.EV_NO_ACTION and event.sha256 is not None
    )


def _log_absence(boot: BootBaseline, baseline: BootBaseline) -> list[str]:
    if boot.events is None and baseline.events is not None:
        return ["the guest gives no event log; it gave one before"]
    return []


def _differences(boot: BootBaseline, baseline: BootBaseline) -> list[str]:
    """For every PCR that is not as it was, the first event that is not."""
    changed = [pcr for pcr in BOOT_PCRS if boot.pcrs.get(pcr) != baseline.pcrs.get(pcr)]
    return [_difference(pcr, boot, baseline) for pcr in changed]


def _difference(pcr: int, boot: BootBaseline, baseline: BootBaseline) -> str:
    now = [event for event in boot.events or () if event.pcr == pcr]
    then = [event for event in baseline.events or () if event.pcr == pcr]
    for position, (new, old) in enumerate(zip(now, then, strict=False), 1):
        if new.sha256 != old.sha256:
            return f"event {position} of PCR {pcr} was ({old.text}) and is now ({new.text})"
    if len(now) > len(then):
        return f"an event was added: {now[len(then)].text}"
    if len(then) > len(now):
        return f"an event is missing: {then[len(now)].text}"
    return f"PCR {pcr} was {baseline.pcrs.get(pcr)} and is now {boot.pcrs.get(pcr)}"


def _state(secure_boot: bool | None) -> str:
    return {True: "is on", False: "is off", None: "is not mentioned"}[secure_boot]


def _malformed_baseline() -> IntegrityError:
    return IntegrityError(
        "the VM's boot baseline cannot be read",
        kind="malformed-baseline",
        remedy="if the present boot is good, remove the baseline: the next boot is learned anew",
    )
