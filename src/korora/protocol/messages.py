"""What two hosts say to each other on the control channel: one msgpack Struct per message, strictly parsed.

Every message travels inside the session's TLS channel as a four-byte big-endian length and its body
(docs/PROTOCOL.md). A body that is not exactly one known message is a PeerError.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from korora.errors import PeerError
from korora.model.evidence import (
    CleanMemoryProof,
    HostEvidence,
)
from korora.model.facts import SourceFacts
from korora.model.plan import CryptographyRule, Finding
from korora.model.storage import DiskOrder
from korora.model.tpm import WrappingKey

VERSION: Final = 1
MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024

Half = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Blob = Annotated[bytes, msgspec.Meta(max_length=4 * 1024 * 1024)]
Text = Annotated[str, msgspec.Meta(max_length=4096)]
LongText = Annotated[str, msgspec.Meta(max_length=256 * 1024)]


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="t"):
    """The base of every message; the tag names it on the wire."""


class Offer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a host is able and willing to use, best first. Part of the HELLO, so part of both quotes."""

    aeads: tuple[Text, ...]
    digests: tuple[Text, ...]
    key_wraps: tuple[Text, ...]
    chunk_bytes: tuple[int, ...]
    max_streams: int


class Hello(Message, frozen=True, tag="hello"):
    """Who speaks, its random half of the session's name, what it offers, and its credentials."""

    version: int
    role: Text
    host: Text
    half: Half
    offer: Offer
    ek_certificate: Blob
    ak_public: Blob
    enrolment: Blob


class Evidence(Message, frozen=True, tag="evidence"):
    """The attester's quote over this very session."""

    evidence: HostEvidence


class Order(Message, frozen=True, tag="order", omit_defaults=True):
    """Source: the operator's signed request, the VM, and the rule to use. `disks` come too."""

    request: Blob
    authorized_by: Text
    definition: LongText
    facts: SourceFacts
    rule: CryptographyRule
    epoch: int
    cold: bool
    dry_run: bool
    adopted: bool
    disks: tuple[DiskOrder, ...] = ()


class Answer(Message, frozen=True, tag="answer"):
    """Destination: allowed by which rule, and every precheck that failed."""

    authorized_by: Text
    findings: tuple[Finding, ...]


class Busy(Message, frozen=True, tag="busy"):
    """Source: it still looks into the VM, and says how far it is; PREPARE comes later."""

    words: Text


class Enclosed(Message, frozen=True, tag="enclosed"):
    """Source: the next part of the VM's dossier, in order; the whole stands in the manifest by its digest."""

    data: Blob
    last: bool


class Prepare(Message, frozen=True, tag="prepare"):
    """Source: what must lie at the destination before the hypervisor starts. `inspected`: the report in the
    dossier is of this very move."""

    variables: Blob | None
    inspected: bool = False


class Ready(Message, frozen=True, tag="ready"):
    """Destination: the empty VM waits; its memory was proved clean; here is the key to wrap for."""

    clean_memory: CleanMemoryProof | None
    wrapping_key: WrappingKey | None


class TransferKey(Message, frozen=True, tag="key"):
    """Source: this migration's vTPM key, openable only by the attested TPM."""

    ephemeral: Blob
    ciphertext: Blob


class Open(Message, frozen=True, tag="open", omit_defaults=True):
    """Destination: the vTPM's key, if there is one, was opened, and data connections are awaited; send.

    `kept`: disks of which it has the content of an earlier visit, and tells the hashes next. `shares`: it may
    have parts of the others, and answers what is asked of them.
    """

    kept: Annotated[tuple[Text, ...], msgspec.Meta(max_length=64)] = ()
    shares: bool = False


class Leaves(Message, frozen=True, tag="leaves"):
    """Destination: the next leaves of the content tree of what it kept of this disk, in order."""

    disk: Text
    data: Blob
    last: bool


class Compare(Message, frozen=True, tag="compare"):
    """Source: these chunks of the disk differ; in which blocks?"""

    disk: Text
    chunks: Annotated[tuple[Annotated[int, msgspec.Meta(ge=0)], ...], msgspec.Meta(max_length=256)]


class Grains(Message, frozen=True, tag="grains"):
    """Destination: the hashes of the blocks of each of these chunks, as it has them."""

    chunks: Annotated[
        tuple[Annotated[bytes, msgspec.Meta(max_length=4096)], ...], msgspec.Meta(max_length=256)
    ]


class Parts(Message, frozen=True, tag="parts"):
    """Either side: of parts of this disk that the destination may have already, as
    docs/protocol/deduplication.md says it."""

    disk: Text
    said: Blob


class Copied(Message, frozen=True, tag="copied"):
    """Source: the disks are the same there, and what the guest writes is written there; measure them."""


class Measured(Message, frozen=True, tag="measured"):
    """Destination: it has, and goes on where they are written."""


class Manifest(Message, frozen=True, tag="manifest"):
    """Source: what was sent, signed, and what the guest told of its boots until it was paused there."""

    envelope: Blob
    cold_state: Blob | None = None
    boot_record: Blob | None = None


class Accept(Message, frozen=True, tag="accept"):
    """Destination: what arrived, signed. The VM is loaded there, and paused."""

    envelope: Blob


class Release(Message, frozen=True, tag="release"):
    """Source: it has durably given the VM up."""

    envelope: Blob


class Running(Message, frozen=True, tag="running"):
    """Destination: it durably owns the VM, and runs it."""

    envelope: Blob


class Decline(Message, frozen=True, tag="decline"):
    """Destination: it has durably given up its claim, without ever having run the VM."""

    envelope: Blob


class Closed(Message, frozen=True, tag="closed"):
    """Source: it owns the VM, and will never release it in this session."""

    session: Text


class ReceiptDraft(Message, frozen=True, tag="receipt"):
    """Source: the receipt with its signature."""

    envelope: Blob


class Countersigned(Message, frozen=True, tag="countersigned"):
    """Destination: the receipt with both signatures, and its place in the destination's log."""

    envelope: Blob
    log_proof: Blob


class Filed(Message, frozen=True, tag="filed"):
    """Source: the complete bundle, for the destination's files."""

    bundle: Blob


class Query(Message, frozen=True, tag="query"):
    """After a restart or a lost connection: what became of this session?"""

    session: Text


class Abort(Message, frozen=True, tag="abort"):
    """Either side, before RELEASE: stop; the source keeps the VM."""

    exit_code: int
    kind: Text
    message: Text
    remedy: Text


AnyMessage = (
    Hello
    | Evidence
    | Order
    | Answer
    | Busy
    | Enclosed
    | Prepare
    | Ready
    | TransferKey
    | Open
    | Leaves
    | Compare
    | Grains
    | Parts
    | Copied
    | Measured
    | Manifest
    | Accept
    | Release
    | Running
    | Decline
    | Closed
    | ReceiptDraft
    | Countersigned
    | Filed
    | Query
    | Abort
)

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[AnyMessage]] = msgspec.msgpack.Decoder(AnyMessage)


def encode(message: Message) -> bytes:
    return _ENCODER.encode(message)


def decode(data: bytes) -> AnyMessage:
    """One whole message, or PeerError(kind="malformed-message")."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise PeerError(
            f"a message of {len(data)} bytes is larger than the protocol allows", kind="malformed-message"
        )
    try:
        message = _DECODER.decode(data)
        # One message, one spelling: what a nested value does not know would be dropped in silence otherwise.
        if _ENCODER.encode(message) != data:
            raise msgspec.DecodeError("it is not in its one spelling")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerError(
            f"the other host sent a message that is not in the protocol: {error}",
            kind="malformed-message",
            remedy="both hosts must run the same version of Korora",
        ) from error
    return message
