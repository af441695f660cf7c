"""What an event log says about a boot: which entries contradict themselves, and whether Secure Boot was on.

Limit: only entries whose digest covers their own text can be checked against it (10.4.1 of the profile);
of the others the digest alone counts.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import Final

from korora.errors import IntegrityError
from korora.policy.cursor import Cursor
from korora.policy.event_log import Event, EventLog, EventType

SECURE_BOOT_PCR: Final = 7

_GLOBAL_VARIABLES: Final = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c").bytes_le
_ERROR_SEPARATOR: Final = hashlib.sha256(b"\x01\0\0\0").digest()
_COVERED: Final = frozenset(
    {
        EventType.EV_SEPARATOR,
        EventType.EV_ACTION,
        EventType.EV_EFI_ACTION,
        EventType.EV_EFI_VARIABLE_DRIVER_CONFIG,
    }
)


def contradictions(log: EventLog) -> tuple[Event, ...]:
    """Entries whose text is not what was measured."""
    return tuple(event for event in log.events if event.kind in _COVERED and not _covers(event))


def secure_boot(log: EventLog) -> bool | None:
    """Whether the firmware enforced Secure Boot; None where the log does not say (as with SeaBIOS).

    Believe it only of a log that replays to the PCRs.
    """
    states = [_switched_on(event) for event in log.events if _is_secure_boot(event)]
    return all(states) if states else None


def described(event: Event) -> str:
    """One line for people: where, what kind, which digest, and its text where there is one."""
    digest = event.sha256.hex() if event.sha256 else "no SHA-256 digest"
    text = _text(event)
    return f"PCR {event.pcr}, {event.kind_name}, {digest}" + (f", {text!r}" if text else "")


def variable(event: Event) -> tuple[bytes, str, bytes]:
    """UEFI_VARIABLE_DATA: vendor GUID, name, contents. IntegrityError when malformed."""
    cursor = Cursor(event.data, "UEFI variable in the event log", "malformed-event-log", "little")
    vendor, name_length, size = cursor.take(16), cursor.number(8), cursor.number(8)
    name = cursor.take(name_length * 2).decode("utf-16-le", "replace")
    content = cursor.take(size)
    cursor.end()
    return vendor, name, content


def _covers(event: Event) -> bool:
    if event.kind == EventType.EV_SEPARATOR and event.sha256 == _ERROR_SEPARATOR:
        return True  # the text then is a diagnosis; that it failed is what is measured
    return event.sha256 is None or hashlib.sha256(event.data).digest() == event.sha256


def _is_secure_boot(event: Event) -> bool:
    if event.pcr != SECURE_BOOT_PCR or event.kind != EventType.EV_EFI_VARIABLE_DRIVER_CONFIG:
        return False
    try:
        vendor, name, _ = variable(event)
    except IntegrityError:
        return False
    return vendor == _GLOBAL_VARIABLES and name == "SecureBoot"


def _switched_on(event: Event) -> bool:
    return variable(event)[2] == b"\x01" and _covers(event)


def _text(event: Event) -> str:
    """Printable text of the entry: a variable's name, or an action."""
    if event.kind in {
        EventType.EV_EFI_VARIABLE_DRIVER_CONFIG,
        EventType.EV_EFI_VARIABLE_BOOT,
        EventType.EV_EFI_VARIABLE_BOOT2,
        EventType.EV_EFI_VARIABLE_AUTHORITY,
    }:
        try:
            return variable(event)[1][:60]
        except IntegrityError:
            return ""
    text = event.data[:60].rstrip(b"\0")
    return text.decode("ascii") if text.isascii() and text.decode("ascii").isprintable() else ""
