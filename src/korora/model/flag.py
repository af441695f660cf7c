"""Flags: problems of a VM's data, each with its place and its reason, and where its original is kept (E5).

Values only. How a flag gets its name, what stands in the place of what could not be loaded, and how a person
resolves one: `protocol.flag`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

import msgspec

MAX_PATH_BYTES: Final = 65_536
Words = Annotated[str, msgspec.Meta(max_length=4096)]
Name = Annotated[str, msgspec.Meta(max_length=256)]
FlagId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
Digest = Annotated[str, msgspec.Meta(pattern="^((sha256|blake3):[0-9a-f]{64}|md5:[0-9a-f]{32})?$")]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Time = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799)]  # Unix seconds, up to the year 9999


class FlagKind(StrEnum):
    UNREADABLE = "unreadable-chunk"  # the storage gives an error there
    DIFFERS = "chunk-differs"  # it is not what was measured, and nothing ran that could have written it
    CONTAINER = "container"  # an image that would open other files, or contradicts itself
    INFECTED = "infected-file"
    INDICATOR = "indicator-match"
    SYSTEM_FILE = "system-file"  # not as its package brought it
    SETTING = "unparsed-setting"  # of a configuration file
    UNREAD = "unread"  # nobody could look, so nothing is known


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where: a part of a disk in bytes, a file in one of its volumes, or a setting of a configuration file.

    `volume` counts from 1. `path`: as the guest spells it, or a member of an archive after `!`.
    """

    disk: Name = ""
    offset: Bytes | None = None
    length: Bytes | None = None
    volume: int | None = None
    path: Annotated[bytes, msgspec.Meta(max_length=MAX_PATH_BYTES)] = b""
    file: Words = ""
    setting: Words = ""


class Original(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What was found there, kept in a bag (RFC 8493) beside the flags, or, with `left`, why it was not.

    `digest`: SHA-256 of the bytes that were kept; `size` in bytes.
    """

    digest: Digest = ""
    size: Bytes = 0
    left: Words = ""


class Flag(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """`content` is the digest of what is wrong, if it could be read: other content is another flag.

    `raised_at` by the clock of the host `raised_by`; `seen_at`: when it was found last. `resolution`: a
    person's signed statement; empty while it is open.
    """

    id: FlagId
    kind: FlagKind
    place: Place
    content: Digest = ""
    reason: Words
    raised_by: Name
    raised_at: Time
    seen_at: Time
    original: Original = Original()
    resolution: Annotated[bytes, msgspec.Meta(max_length=16_384)] = b""

    @property
    def is_open(self) -> bool:
        return not self.resolution


def shown(place: Place) -> str:
    """For people, on one line."""
    parts = []
    if place.disk:
        parts.append(f"disk {place.disk}")
    if place.offset is not None:
        end = place.offset + (place.length or 0)
        parts.append(f"bytes {place.offset} to {end}")
    if place.volume is not None:
        parts.append(f"volume {place.volume}")
    if place.path:
        parts.append(place.path.decode("utf-8", "backslashreplace"))
    if place.file:
        parts.append(place.file)
    if place.setting:
        parts.append(place.setting)
    return ", ".join(parts).replace("\n", "\\n") or "the VM"
