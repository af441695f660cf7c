"""Read and write a TCG measured-boot event log, and replay it.

Promise: `parse` takes a log apart completely or raises IntegrityError(kind="malformed-event-log"); `replay`
computes what the SHA-256 PCRs must be if exactly these events were measured. Limit: a log is a story told by
software; it is worth what the PCRs beside it confirm. A log in the old SHA-1 format can be read, but says
nothing about SHA-256 PCRs (`replay` raises).

Source: TCG PC Client Platform Firmware Profile 1.05, section 10. Integers are little-endian.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from korora.errors import IntegrityError
from korora.model.evidence import PcrValues
from korora.policy.cursor import Cursor
from korora.policy.pcrs import PCR_COUNT

MAX_LOG_BYTES: Final = 4 * 1024 * 1024
MAX_EVENTS: Final = 16384

_SHA1, _SHA256 = 0x0004, 0x000B
_DIGEST_BYTES: Final = {_SHA1: 20, _SHA256: 32, 0x000C: 48, 0x000D: 64, 0x0012: 32}
_SPEC_ID: Final = b"Spec ID Event03\0"
_STARTUP_LOCALITY: Final = b"StartupLocality\0"
_DYNAMIC_PCRS: Final = range(17, 23)  # all ones until a dynamic launch


class EventType(IntEnum):
    """The event types of the profile (10.4.1)."""

    EV_PREBOOT_CERT = 0x00
    EV_POST_CODE = 0x01
    EV_UNUSED = 0x02
    EV_NO_ACTION = 0x03
    EV_SEPARATOR = 0x04
    EV_ACTION = 0x05
    EV_EVENT_TAG = 0x06
    EV_S_CRTM_CONTENTS = 0x07
    EV_S_CRTM_VERSION = 0x08
    EV_CPU_MICROCODE = 0x09
    EV_PLATFORM_CONFIG_FLAGS = 0x0A
    EV_TABLE_OF_DEVICES = 0x0B
    EV_COMPACT_HASH = 0x0C
    EV_IPL = 0x0D
    EV_IPL_PARTITION_DATA = 0x0E
    EV_NONHOST_CODE = 0x0F
    EV_NONHOST_CONFIG = 0x10
    EV_NONHOST_INFO = 0x11
    EV_OMIT_BOOT_DEVICE_EVENTS = 0x12
    EV_POST_CODE2 = 0x13
    EV_EFI_VARIABLE_DRIVER_CONFIG = 0x80000001
    EV_EFI_VARIABLE_BOOT = 0x80000002
    EV_EFI_BOOT_SERVICES_APPLICATION = 0x80000003
    EV_EFI_BOOT_SERVICES_DRIVER = 0x80000004
    EV_EFI_RUNTIME_SERVICES_DRIVER = 0x80000005
    EV_EFI_GPT_EVENT = 0x80000006
    EV_EFI_ACTION = 0x80000007
    EV_EFI_PLATFORM_FIRMWARE_BLOB = 0x80000008
    EV_EFI_HANDOFF_TABLES = 0x80000009
    EV_EFI_PLATFORM_FIRMWARE_BLOB2 = 0x8000000A
    EV_EFI_HANDOFF_TABLES2 = 0x8000000B
    EV_EFI_VARIABLE_BOOT2 = 0x8000000C
    EV_EFI_GPT_EVENT2 = 0x8000000D
    EV_EFI_HCRTM_EVENT = 0x80000010
    EV_EFI_VARIABLE_AUTHORITY = 0x800000E0
    EV_EFI_SPDM_FIRMWARE_BLOB = 0x800000E1
    EV_EFI_SPDM_FIRMWARE_CONFIG = 0x800000E2


@dataclass(frozen=True, slots=True)
class Event:
    """One entry. `kind` may be a number that EventType does not know; `sha256` may be absent."""

    pcr: int
    kind: int
    sha256: bytes | None
    data: bytes

    @property
    def kind_name(self) -> str:
        return EventType(self.kind).name if self.kind in _KNOWN else f"event type {self.kind:#x}"


@dataclass(frozen=True, slots=True)
class EventLog:
    """All entries in order, without the header. `startup_locality` is where TPM2_Startup came from."""

    events: tuple[Event, ...]
    startup_locality: int = 0


_KNOWN: Final = frozenset(int(kind) for kind in EventType)


def parse(data: bytes) -> EventLog:
    """Read a whole log; what follows the last event may only be padding of zeros or of ones."""
    if len(data) > MAX_LOG_BYTES:
        _cursor(b"").fail(f"has {len(data)} bytes, more than {MAX_LOG_BYTES}")
    cursor = _cursor(data)
    first = _legacy_event(cursor)
    if first.kind == EventType.EV_NO_ACTION and first.data[:16] == _SPEC_ID:
        return _with_locality(_agile_events(cursor, _algorithms(first.data)))
    return _with_locality([first, *_legacy_events(cursor)])


def replay(log: EventLog, pcrs: Iterable[int]) -> PcrValues:
    """The SHA-256 values of these PCRs after the log's events, from a TPM reset on.

    IntegrityError(kind="event-log-mismatch") when an event of theirs has no SHA-256 digest.
    """
    values = {pcr: _initial(pcr, log.startup_locality) for pcr in pcrs}
    for event in log.events:
        if event.pcr not in values or event.kind == EventType.EV_NO_ACTION:
            continue
        if event.sha256 is None:
            raise IntegrityError(
                f"an event of PCR {event.pcr} has no SHA-256 digest, so the log cannot be checked",
                kind="event-log-mismatch",
                remedy="enable the TPM's SHA-256 bank in the firmware, and give the log that it then writes",
            )
        values[event.pcr] = hashlib.sha256(values[event.pcr] + event.sha256).digest()
    return {pcr: value.hex() for pcr, value in values.items()}


def encoded(events: Sequence[Event], startup_locality: int = 0) -> bytes:
    """A crypto-agile log with SHA-256 digests alone, as a firmware would write it. ValueError without one."""
    header = _SPEC_ID + bytes(4) + bytes([0, 2, 0, 2]) + (1).to_bytes(4, "little")
    header += _SHA256.to_bytes(2, "little") + (32).to_bytes(2, "little") + b"\0"
    start = bytes(4) + EventType.EV_NO_ACTION.to_bytes(4, "little") + bytes(20)
    parts = [start, _sized(header)]
    if startup_locality:
        locality = _STARTUP_LOCALITY + bytes([startup_locality])
        parts.append(_encoded(Event(0, EventType.EV_NO_ACTION, bytes(32), locality)))
    return b"".join([*parts, *map(_encoded, events)])


def _encoded(event: Event) -> bytes:
    if event.sha256 is None or len(event.sha256) != 32:
        raise ValueError("only events with a SHA-256 digest can be written")
    head = event.pcr.to_bytes(4, "little") + int(event.kind).to_bytes(4, "little")
    digests = (1).to_bytes(4, "little") + _SHA256.to_bytes(2, "little") + event.sha256
    return head + digests + _sized(event.data)


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


def _cursor(data: bytes) -> Cursor:
    return Cursor(data, "event log", "malformed-event-log", "little")


def _legacy_event(cursor: Cursor) -> Event:
    """TCG_PCClientPCREvent, with a SHA-1 digest that is read and not used."""
    pcr, kind = _place(cursor), cursor.number(4)
    cursor.take(20)
    return Event(pcr, kind, None, cursor.sized(4))


def _legacy_events(cursor: Cursor) -> list[Event]:
    events: list[Event] = []
    while not _ended(cursor, len(events)):
        events.append(_legacy_event(cursor))
    return events


def _agile_events(cursor: Cursor, algorithms: dict[int, int]) -> list[Event]:
    """TCG_PCR_EVENT2, each with the digests that the header announced."""
    events: list[Event] = []
    while not _ended(cursor, len(events)):
        pcr, kind = _place(cursor), cursor.number(4)
        digests = _digests(cursor, algorithms)
        events.append(Event(pcr, kind, digests.get(_SHA256), cursor.sized(4)))
    return events


def _digests(cursor: Cursor, algorithms: dict[int, int]) -> dict[int, bytes]:
    digests: dict[int, bytes] = {}
    for _ in range(_count(cursor)):
        algorithm = cursor.number(2)
        if algorithm not in algorithms or algorithm in digests:
            cursor.fail(f"has a digest of algorithm {algorithm:#06x} twice or unannounced")
        digests[algorithm] = cursor.take(algorithms[algorithm])
    return digests


def _algorithms(header: bytes) -> dict[int, int]:
    """Digest sizes from TCG_EfiSpecIdEvent; a size that contradicts a known algorithm is malformed."""
    cursor = _cursor(header)
    cursor.take(16 + 4 + 4)  # signature, platform class, version and size of UINTN
    algorithms: dict[int, int] = {}
    for _ in range(_count(cursor)):
        algorithm, size = cursor.number(2), cursor.number(2)
        if algorithm in algorithms or not 0 < size <= 64 or _DIGEST_BYTES.get(algorithm, size) != size:
            cursor.fail(f"announces digests of {size} bytes for algorithm {algorithm:#06x}")
        algorithms[algorithm] = size
    cursor.take(cursor.number(1))
    cursor.end()
    return algorithms


def _count(cursor: Cursor) -> int:
    count = cursor.number(4)
    if not 1 <= count <= 16:
        cursor.fail(f"has {count} digest algorithms at offset {cursor.at}")
    return count


def _place(cursor: Cursor) -> int:
    pcr = cursor.number(4)
    # 0xFFFFFFFF marks entries without a PCR (EV_NO_ACTION).
    if pcr >= PCR_COUNT and pcr != 0xFFFFFFFF:
        cursor.fail(f"has an event for PCR {pcr}")
    return pcr


def _ended(cursor: Cursor, count: int) -> bool:
    if count > MAX_EVENTS:
        cursor.fail(f"has more than {MAX_EVENTS} events")
    return cursor.padding()


def _with_locality(events: list[Event]) -> EventLog:
    for event in events:
        if event.kind == EventType.EV_NO_ACTION and event.data[:16] == _STARTUP_LOCALITY:
            if len(event.data) != 17 or event.data[16] not in {0, 3, 4}:
                _cursor(b"").fail("has a startup locality that no TPM has")
            return EventLog(tuple(events), event.data[16])
    return EventLog(tuple(events))


def _initial(pcr: int, startup_locality: int) -> bytes:
    if pcr in _DYNAMIC_PCRS:
        return b"\xff" * 32
    return bytes(31) + bytes([startup_locality if pcr == 0 else 0])
