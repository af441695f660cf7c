"""What a daemon says while it looks into a VM, and of flags. NDJSON lines in, values out."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from korora.client.events import Failure
from korora.errors import PeerError
from korora.model.flag import Flag
from korora.model.inspection import Inspection, Verification


class FlagView(msgspec.Struct, frozen=True):
    vm: str
    flag: Flag


class Unreadable(msgspec.Struct, frozen=True):
    """A VM whose record of flags cannot be read: how many there are, and what they say, is unknown."""

    vm: str
    error: Failure


class FlagsView(msgspec.Struct, frozen=True):
    flags: tuple[FlagView, ...]
    unreadable: tuple[Unreadable, ...]


class Looking(msgspec.Struct, frozen=True):
    """How far it is."""

    told: str


class Inspected(msgspec.Struct, frozen=True):
    """`flags`: of the VM, those that are open."""

    inspection: Inspection
    flags: tuple[Flag, ...]


class Verified(msgspec.Struct, frozen=True):
    verification: Verification


class Failed(msgspec.Struct, frozen=True):
    error: Failure


InspectionEvent: TypeAlias = Looking | Inspected | Verified
_KINDS: dict[str, type[Looking | Inspected | Verified | Failed]] = {
    "told": Looking,
    "inspection": Inspected,
    "verification": Verified,
    "error": Failed,
}


def parse_inspection_event(line: bytes) -> InspectionEvent | Failed:
    """PeerError when it is not one known event."""
    try:
        said: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
        (kind,) = (kind for name, kind in _KINDS.items() if name in said)
        event: InspectionEvent | Failed = msgspec.convert(said, kind)
        return event
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise unexpected(str(error)) from error


def unexpected(what: str) -> PeerError:
    """Of a line that has no place where it came."""
    return PeerError(
        f"the daemon told of an inspection in a line that is not in the contract: {what}",
        kind="daemon-answer",
        remedy="see that the daemon is korora hostd, of the same version as this command",
    )
