"""What is asked and what is agreed: the operator's request, the cryptography rule, precheck findings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from korora.model.identity import HostName, OperatorName, VmName
from korora.model.storage import NO_DISKS, DisksAsked


class Mode(StrEnum):
    LIVE = "live"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True)
class MigrationRequest:
    """The statement an operator signs (S2, S5). Times are Unix seconds; the nonce is 32 bytes in hex."""

    operator: OperatorName
    procedure: str  # the transformation procedure asked for: "migrate"
    vm: VmName
    source: HostName
    destination: HostName
    mode: Mode
    nonce: str
    issued_at: int
    not_after: int
    disks: DisksAsked = NO_DISKS


@dataclass(frozen=True, slots=True)
class CryptographyRule:
    """What both hosts agreed to use; both offers are inside both quotes, so there is no downgrade."""

    tls_version: str
    tls_group: str
    aead: str
    digest: str
    chunk_bytes: int
    streams: int
    key_wrap: str


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What a check asks: could this migration begin? Unsigned, so it spends nothing and moves nothing.

    `operator` is whose permission is looked at, None for nobody's; `address` and `disks` as in a migration.
    """

    vm: VmName
    destination: HostName
    mode: Mode = Mode.LIVE
    operator: OperatorName | None = None
    address: str | None = None
    disks: DisksAsked = NO_DISKS


@dataclass(frozen=True, slots=True)
class Finding:
    """One precheck that failed, with what mends it (S1)."""

    check: str
    host: HostName
    message: str
    remedy: str
