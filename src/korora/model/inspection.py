"""What the Integrity Analyzer found of a VM: facts, findings, and what was done about them (E1 to E5)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

import msgspec

from korora.model.flag import Bytes, Digest, FlagKind, Name, Original, Place, Time, Words

VERSION: Final = 1
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Check(StrEnum):
    """What is looked at, in this order."""

    CONFIGURATION = "configuration"
    CONTAINERS = "containers"
    DISKS = "disks"
    FILES = "files"
    PACKAGES = "packages"
    MALWARE = "malware"
    INDICATORS = "indicators"
    UNKNOWN = "unknown"  # whatever the others could not look at


class Disposition(StrEnum):
    """What a finding of a check leads to."""

    OFF = "off"  # it is not looked at
    REPORT = "report"  # it stands in the report and the receipt
    FLAG = "flag"  # it is flagged as well; the flag goes with the VM
    BLOCK = "block"  # it is flagged, and while the flag is open the VM does not move


CHECK_OF: Final = {
    FlagKind.SETTING: Check.CONFIGURATION,
    FlagKind.CONTAINER: Check.CONTAINERS,
    FlagKind.UNREADABLE: Check.DISKS,
    FlagKind.DIFFERS: Check.DISKS,
    FlagKind.SYSTEM_FILE: Check.PACKAGES,
    FlagKind.INFECTED: Check.MALWARE,
    FlagKind.INDICATOR: Check.INDICATORS,
    FlagKind.UNREAD: Check.UNKNOWN,
}
"""Whose finding each kind is. FILES finds nothing by itself: it is a baseline."""


class Found(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One finding. `content` as in a Flag."""

    kind: FlagKind
    place: Place
    content: Digest = ""
    reason: Words
    original: Original = Original()


class DiskFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One disk. `root` and `files_root` are None where something of it is unknown, or nobody looked.

    `root` is over placeholders where chunks could not be read, and then `placeholders` says how many.
    """

    name: Name
    format: Name
    size: Bytes = 0
    root: Digest | None = None
    placeholders: Count = 0
    files_root: Digest | None = None
    files: Count = 0
    bytes_read: Bytes = 0


class ConfigurationFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One configuration file. `placeholders`: how many settings of it could not be read, and have one in
    the digest."""

    file: Words
    format: Name
    digest: Digest | None = None
    placeholders: Count = 0


class Looked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one check did: `examined` and `unknown` count what it looks at (files, disks). `words`: with what,
    such as an engine's version and signatures."""

    check: Check
    examined: Count = 0
    unknown: Count = 0
    words: Words = ""


class Examined(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an inspector saw. `dropped`: findings beyond the bound, by kind."""

    looked: tuple[Looked, ...]
    disks: tuple[DiskFacts, ...] = ()
    configuration: tuple[ConfigurationFacts, ...] = ()
    found: tuple[Found, ...] = ()
    dropped: dict[FlagKind, Count] = {}


class CheckResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One check in the report. `found` counts its findings, `open` its flags that no person has resolved."""

    check: Check
    disposition: Disposition
    examined: Count = 0
    found: Count = 0
    open: Count = 0
    unknown: Count = 0
    words: Words = ""


class Inspection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The report that goes into the receipt. `running`: a snapshot of a running VM was looked at, as it was
    at one moment; otherwise a stopped one. `baseline`: SHA-256 of what was written down of every file and
    chunk; "" if nothing was.
    """

    version: int = VERSION
    vm: Name
    host: Name
    at: Time
    took_s: Count
    running: bool
    checks: tuple[CheckResult, ...]
    disks: tuple[DiskFacts, ...] = ()
    configuration: tuple[ConfigurationFacts, ...] = ()
    baseline: Digest = ""

    def result(self, check: Check) -> CheckResult | None:
        return next((one for one in self.checks if one.check is check), None)


# -- later, on whatever host the VM is -------------------------------------------------------------------


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes of a disk."""

    offset: Bytes
    length: Bytes


class DiskVerified(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A disk against its baseline, in chunks of 1 MiB. The counts are None where there is no baseline of its
    chunks; `differ` names the first ranges that are not the same."""

    name: Name
    before: Digest | None = None
    now: Digest | None = None
    chunks_same: Count | None = None
    chunks_differ: Count | None = None
    differ: tuple[Range, ...] = ()


class FileVerified(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What became of one file. `change`: added, removed, changed; `what` of it."""

    disk: Name
    volume: int
    path: Annotated[bytes, msgspec.Meta(max_length=65_536)]
    change: Name
    what: tuple[Words, ...] = ()


class Compared(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an inspector saw when it held a VM against its baseline. `files_more`: changed files beyond the
    bound; `files_same` is None where there is no baseline of files. `configuration`: what changed in it, in
    words, beside what a move brings about."""

    examined: Examined
    disks: tuple[DiskVerified, ...] = ()
    files_same: Count | None = None
    files: tuple[FileVerified, ...] = ()
    files_more: Count = 0
    configuration: tuple[Words, ...] = ()


class Verification(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A VM held against the inspection `of`. `ran`: it ran since, so what differs may be its own work; if it
    did not, nothing may differ. `proved`: the baseline is the one whose digest both hosts signed."""

    vm: Name
    host: Name
    at: Time
    of: Inspection
    running: bool
    ran: bool
    proved: bool
    compared: Compared
