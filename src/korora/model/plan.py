"""What is asked and what is agreed: the operator's request, the cryptography rule, precheck findings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from korora.model.identity import HostName, OperatorName, VmName
from korora.model.storage import StorageMode


class Mode(StrEnum):
    LIVE = "live"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True)
class MigrationRequest:
    """The statement an operator signs (S2, S5). Times are Unix seconds; the nonce is 32 bytes in hex.

    `disks` move too, by name, or all of them (`storage.ALL`); `disk_format` is what they become, "" as they
    are. The others are on storage that both hosts see. `incremental`: the source keeps what it has of them,
    and only what differs is sent to a destination that kept one before (W2). `replacement`: a folder of the
    source, for what the guest writes when it is outsourced; "" for the VM's own. `keep_backing`: they come
    over the images that lie beneath them, which the destination has too; else each as one image.
    """

    operator: OperatorName
    procedure: str  # the transformation procedure asked for: "migrate"
    vm: VmName
    source: HostName
    destination: HostName
    mode: Mode
    nonce: str
    issued_at: int
    not_after: int
    disks: tuple[str, ...] = ()
    disk_format: str = ""
    incremental: bool = False
    storage_mode: StorageMode = StorageMode.AUTO
    replacement: str = ""
    keep_backing: bool = False


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

    `operator` is whose permission is looked at, None for nobody's; `address` as in a migration, and so all
    that is said of disks.
    """

    vm: VmName
    destination: HostName
    mode: Mode = Mode.LIVE
    operator: OperatorName | None = None
    address: str | None = None
    disks: tuple[str, ...] = ()
    disk_format: str = ""
    incremental: bool = False
    storage_mode: StorageMode = StorageMode.AUTO
    replacement: str = ""
    keep_backing: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One precheck that failed, with what mends it (S1)."""

    check: str
    host: HostName
    message: str
    remedy: str
