"""The receipt of one migration: everything a third party needs to judge it later, signed by both hosts (S6).

Promise: nothing stands in it twice. Names, vTPM identities and roots are in the signed statements, a host's
credentials in its HELLO as it stood on the wire, so that no two parts can tell different stories.
Limit: it is what the two hosts said. What of it can be checked without trusting them,
`protocol.receipt.verification` checks.

A *bundle* is the file that is kept: the receipt's envelope with both signatures, and each host's proof that
it stands in that host's log.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Final

import msgspec

from korora.errors import IntegrityError
from korora.model.evidence import CleanMemoryProof, HostEvidence, WipeCertificate
from korora.model.flag import FlagId, FlagKind
from korora.model.identity import sha256
from korora.model.inspection import Inspection
from korora.model.plan import CryptographyRule, Mode
from korora.model.tpm import WrappingKey
from korora.protocol import canonical, dsse
from korora.protocol.log import LogEntry, LogProof
from korora.protocol.statements import Epoch, Name, Session, Sha256, Time

VERSION: Final = 1
RECEIPT_TYPE: Final = "application/vnd.korora.receipt+json"
MAX_RECEIPT_BYTES: Final = dsse.MAX_ENVELOPE_BYTES
MAX_BUNDLE_BYTES: Final = MAX_RECEIPT_BYTES + 64 * 1024

Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Limit(StrEnum):
    """What a receipt must admit where the proof is missing; the words stand in `Receipt.limits`."""

    MEMORY_NOT_PROVED = "the destination's memory could not be looked at before the VM arrived"
    NO_MEMORY = "the VM was stopped: it had no memory to move, to prove clean or to wipe"
    VTPM_IN_STREAM = "the vTPM's state was protected by the encrypted stream alone, not by a key of its own"
    NO_VTPM = "no vTPM was in the hosts' custody"
    NOT_INSPECTED = "nobody looked into the VM's disks, files and configuration for this move"
    DISKS_KEPT = (
        "the source keeps disks of the VM as they were when it left, for its return: they are not wiped"
    )
    BACKING_STAYS = "images that lay beneath disks of the VM stay at the source: others may use them"
    ADOPTED_DISKS = (
        "the VM was adopted: its images stay where they were, seen by both hosts, and are not wiped"
    )
    """Followed by their paths."""
    BASELINE_LEFT = "the baseline of the VM's files and chunks was too large to go with it"


class HostPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One host: its HELLO as sent (with EK certificate, AK and enrolment), its TLS certificate (DER), the
    evidence over this session, and the rule by which it allowed the request."""

    hello: bytes
    tls_certificate: bytes
    evidence: HostEvidence
    allowed_by: str


class Ownership(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The hand-over's signed statements, as their envelopes stood on the wire."""

    manifest: bytes
    accept: bytes
    release: bytes
    running: bytes


class GuestBoot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The guest's measured boot against its own baseline; `verdict` is the appraiser's word."""

    verdict: str
    findings: tuple[str, ...] = ()
    secure_boot: bool | None = None


class Flags(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The VM's flags as they went with it. `record`: SHA-256 of all of them; `listed`: names and kinds of the
    open ones, the first 500 by name."""

    record: Sha256
    open: Bytes
    resolved: Bytes
    listed: tuple[tuple[FlagId, FlagKind], ...] = ()


class Timings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """By the source's clock. `downtime_ms`: guest paused until RUNNING arrived; None when it did not run."""

    phases: dict[str, Milliseconds]
    downtime_ms: Milliseconds | None
    total_ms: Milliseconds


class Receipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of it. `completed_at` is the source's clock.

    `binding` is the channel's exporter value that both quotes cover; `wrapping` the TPM key that the vTPM's
    key was wrapped to; `inspection` what was found in the VM before it left, None if nobody looked; `limits`
    say in sentences what this migration did not protect or prove: those of `Limit` where one fits, or others.
    """

    version: int = VERSION
    vm: Name
    source: Name
    destination: Name
    session: Session
    epoch: Epoch
    mode: Mode
    request: bytes
    source_host: HostPart
    destination_host: HostPart
    binding: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    rule: CryptographyRule
    prechecks: tuple[str, ...]
    clean_memory: CleanMemoryProof | None
    wrapping: WrappingKey | None
    guest_boot: GuestBoot | None
    inspection: Inspection | None
    flags: Flags | None
    ownership: Ownership
    wipe: WipeCertificate
    timings: Timings
    bytes_sent: Bytes
    bytes_guest: Bytes
    limits: tuple[str, ...]
    completed_at: Time


class Bundle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file. The envelope is JSON within JSON, so that other DSSE tools read it from here."""

    version: int = VERSION
    receipt: msgspec.Raw
    logs: tuple[LogProof, ...]


def signed(receipt: Receipt, key: dsse.SigningKey) -> bytes:
    """The receipt's envelope with one signature; the other host adds its own with `dsse.countersign`."""
    return dsse.envelope(RECEIPT_TYPE, canonical.encoded(receipt), [key])


def opened(envelope: bytes, signers: Sequence[dsse.PublicKey]) -> Receipt:
    """The receipt, once all of these (different) keys signed it.

    IntegrityError of kind signature or malformed-statement.
    """
    trusted = {dsse.key_id(key): key for key in signers}
    return _decoded(dsse.opened(envelope, RECEIPT_TYPE, trusted, threshold=len(signers)))


def peek(envelope: bytes) -> Receipt:
    """What it claims, nothing verified: to show it, or to find whose keys to verify it with."""
    read = dsse.parse(envelope)
    if read.payload_type != RECEIPT_TYPE:
        raise _malformed(f"it is a {read.payload_type[:100]!r}")
    return _decoded(read.payload)


def disagreements(one: Receipt, other: Receipt) -> tuple[str, ...]:
    """The names of the fields in which two hosts' receipts of one migration differ."""
    return tuple(name for name in Receipt.__struct_fields__ if getattr(one, name) != getattr(other, name))


def leaf(envelope: bytes) -> bytes:
    """What a host appends to its log when it files this receipt."""
    receipt = peek(envelope)
    entry = LogEntry(kind="receipt", vm=receipt.vm, session=receipt.session, digest=sha256(envelope))
    return entry.leaf()


def bundle(envelope: bytes, source: LogProof, destination: LogProof) -> bytes:
    """The file's bytes."""
    return canonical.encoded(Bundle(receipt=msgspec.Raw(envelope), logs=(source, destination)))


def parse_bundle(data: bytes) -> Bundle:
    """The file's parts, nothing verified. IntegrityError(kind="malformed-statement") when it is no bundle."""
    if len(data) > MAX_BUNDLE_BYTES:
        raise _malformed(f"{len(data)} bytes are more than a receipt may have")
    read = canonical.decoded(data, Bundle)
    if read.version != VERSION:
        raise _malformed(f"version {read.version} of it is not known here")
    return read


def _decoded(payload: bytes) -> Receipt:
    receipt = canonical.decoded(payload, Receipt)
    if receipt.version != VERSION:
        raise _malformed(f"version {receipt.version} of it is not known here")
    return receipt


def _malformed(problem: str) -> IntegrityError:
    return IntegrityError(
        f"this is no usable receipt: {problem}",
        kind="malformed-statement",
        remedy="ask one of the two hosts for its copy",
    )
