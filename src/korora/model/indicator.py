"""What is known to be bad (or good), who says so, and what was found of it. Times are Unix seconds.

The value of an indicator is in one canonical spelling, ASCII, so that equal things are equal strings.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import msgspec


class Kind(StrEnum):
    MD5 = "md5"
    SHA1 = "sha1"
    SHA256 = "sha256"
    SHA512 = "sha512"
    IPV4 = "ipv4"
    IPV6 = "ipv6"
    NETWORK = "network"  # IPv4 or IPv6, with its prefix length
    DOMAIN = "domain"  # A-labels; its subdomains are meant too
    URL = "url"  # normalised
    KEPT = "kept"  # understood to be an indicator, and not matched: "what:text"


HASHES: Final = {Kind.MD5: 32, Kind.SHA1: 40, Kind.SHA256: 64, Kind.SHA512: 128}
"""Hex digits of each."""


class Verdict(StrEnum):
    MALICIOUS = "malicious"
    BENIGN = "benign"
    CONTEXT = "context"  # told as background; its source does not want it looked for


class Provenance(msgspec.Struct, frozen=True, omit_defaults=True):
    """One source's word on one value. `reference` is the source's own name for it, such as an id."""

    source: str
    reference: str = ""
    verdict: Verdict = Verdict.MALICIOUS
    revoked: bool = False
    confidence: int | None = None  # 0 to 100; None when the source does not say
    family: str = ""
    author: str = ""
    note: str = ""
    first_seen: int | None = None
    last_seen: int | None = None
    valid_from: int | None = None
    expires: int | None = None
    changed_at: int | None = (
        None  # when the source changed this entry last; the import's time when it does not say
    )
    imported_at: int = 0
    file: str = ""  # "sha256:…" of the file it came from


class Entry(msgspec.Struct, frozen=True):
    """One line of a source, understood."""

    kind: Kind
    value: str
    provenance: Provenance


class Indicator(msgspec.Struct, frozen=True):
    """One value with the word of every source, in one order whatever the order of their imports."""

    kind: Kind
    value: str
    provenances: tuple[Provenance, ...]


class Severity(StrEnum):
    BROKEN = "broken"  # it cannot be understood: the file is damaged, or not what it seems
    REFUSED = "refused"  # understood, and of no use as an indicator
    KEPT = "kept"  # kept in the store, and not matched
    WARNING = "warning"  # taken, but look at it


class Finding(msgspec.Struct, frozen=True):
    """Something about one entry of a file. `where`: "line 7", or a JSON pointer."""

    severity: Severity
    where: str
    message: str


class Force(StrEnum):
    """How much of an indicator was found."""

    CONTENT = "content"  # the file itself has this hash
    FULL = "full"  # the address, domain or URL stands there
    MENTION = "mention"  # the hash stands there, as text
    HOST = "host"  # of a URL the host alone: a hint, not a match


class Hit(msgspec.Struct, frozen=True):
    """`offset` of its first byte in what was looked through; `seen` is what stands there."""

    kind: Kind
    value: str
    force: Force
    offset: int
    seen: str
    encoding: str = "ascii"


class Standing(StrEnum):
    """What all sources together say at one moment."""

    IN_FORCE = "in force"
    BENIGN = "benign"
    CONTEXT = "context"
    REVOKED = "revoked"
    EXPIRED = "expired"
    NOT_YET = "not yet valid"
    NOT_MATCHED = "not matched"


def rank(provenance: Provenance) -> tuple[int, bytes]:
    """Of two words of one source on one entry, the one that counts is the greater: what was changed last."""
    plain = msgspec.structs.replace(provenance, imported_at=0, file="")
    return provenance.changed_at or 0, msgspec.json.encode(plain)


def merged(provenances: Iterable[Provenance]) -> tuple[Provenance, ...]:
    """One for each source and entry, in one order."""
    kept: dict[tuple[str, str], Provenance] = {}
    for one in provenances:
        before = kept.get((one.source, one.reference))
        if before is None or rank(one) > rank(before):
            kept[one.source, one.reference] = one
    return tuple(kept[key] for key in sorted(kept))
