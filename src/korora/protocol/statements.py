"""What is signed around a hand-over: the operator's request, and what the two hosts tell each other.

Each statement is canonical JSON in a DSSE envelope under its own payload type. From MANIFEST to RUNNING
each names the SHA-256 digest of the envelope it answers, so the last one vouches for the whole chain.

Promise: `opened` returns a statement that the trusted key signed, in its one spelling, with usable names.
Limit: whether it belongs to this move is `check_move`'s to say, and whether it may come now, the ownership
table's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar, cast

import msgspec

from korora.errors import IntegrityError, UsageError
from korora.model.crossing import Carried
from korora.model.evidence import StreamRoot
from korora.model.identity import Digest, HostName, OperatorName, SessionId, VmName, checked_name, sha256
from korora.model.plan import MigrationRequest, Mode
from korora.model.storage import Beneath, DiskContent, DisksAsked, StorageMode
from korora.protocol import canonical, dsse

VERSION: Final = 1
REQUEST_TYPE: Final = "application/vnd.korora.request+json"
MAX_STATEMENT_BYTES: Final = 256 * 1024

Sha256 = Annotated[str, msgspec.Meta(pattern="^sha256:[0-9a-f]{64}$")]
Blake3 = Annotated[str, msgspec.Meta(pattern="^blake3:[0-9a-f]{64}$")]
Session = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{128}$")]
Nonce = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Name = Annotated[str, msgspec.Meta(max_length=63)]
Folder = Annotated[str, msgspec.Meta(pattern=r"^/[^\x00-\x1f\x7f]*\Z", max_length=1024)]
DiskName = Annotated[str, msgspec.Meta(pattern=r"^(\*|[a-z][a-z0-9_-]{0,30})$")]
Time = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799)]  # Unix seconds, up to the year 9999
Epoch = Annotated[int, msgspec.Meta(ge=1, le=2**53)]


class Move(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which hand-over a statement is about; `epoch` is the one that the destination takes."""

    vm: Name
    source: Name
    destination: Name
    session: Session
    epoch: Epoch


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The base of every host's statement. `at` is the signer's clock, in Unix seconds."""

    TYPE: ClassVar[str] = ""

    version: int = VERSION
    move: Move
    at: Time


class Disk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A disk that moved, as it is with the VM paused; see `model.storage.DiskContent`."""

    name: Name
    size: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    root: Blake3
    beneath: Literal["kept", "flattened"] | msgspec.UnsetType = msgspec.UNSET


Disks = tuple[Disk, ...] | msgspec.UnsetType
"""By name. Not written at all in a move without disks."""


class Manifest(Statement, frozen=True, kw_only=True):
    """Source: what was sent. `files` are digests of what went beside the stream, by name."""

    TYPE: ClassVar[str] = "application/vnd.korora.manifest+json"

    mode: Mode
    carried: Carried
    files: dict[str, Sha256]
    disks: Disks = msgspec.UNSET


class Accept(Statement, frozen=True, kw_only=True):
    """Destination: what arrived; loaded, verified, paused."""

    TYPE: ClassVar[str] = "application/vnd.korora.accept+json"

    manifest: Sha256
    carried: Carried
    disks: Disks = msgspec.UNSET


class Release(Statement, frozen=True, kw_only=True):
    """Source: from `move.epoch` on the VM is the destination's."""

    TYPE: ClassVar[str] = "application/vnd.korora.release+json"

    accept: Sha256


class Running(Statement, frozen=True, kw_only=True):
    """Destination: it owns the VM durably, and has run it."""

    TYPE: ClassVar[str] = "application/vnd.korora.running+json"

    release: Sha256


class Decline(Statement, frozen=True, kw_only=True):
    """Destination: it never ran the VM under this epoch, and durably never will."""

    TYPE: ClassVar[str] = "application/vnd.korora.decline+json"

    release: Sha256 | None
    reason: Annotated[str, msgspec.Meta(max_length=4096)]


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A person's answer to a VM in doubt: `host` takes (or drops) it; `epoch` is what it has afterwards."""

    TYPE: ClassVar[str] = "application/vnd.korora.decision+json"

    version: int = VERSION
    operator: Name
    vm: Name
    host: Name
    session: Session
    choice: Literal["decision take-back", "decision run-here", "decision discard"]  # a model.ownership.On
    epoch: Epoch
    reason: Annotated[str, msgspec.Meta(max_length=4096)]
    nonce: Nonce
    at: Time


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    operator: Name
    procedure: Name
    vm: Name
    source: Name
    destination: Name
    mode: Mode
    nonce: Nonce
    issued_at: Time
    not_after: Time
    disks: tuple[DiskName, ...] | msgspec.UnsetType = msgspec.UNSET
    disk_format: Literal["raw", "qcow2"] | msgspec.UnsetType = msgspec.UNSET
    incremental: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    storage_mode: Literal["mirror", "outsource"] | msgspec.UnsetType = msgspec.UNSET
    replacement: Folder | msgspec.UnsetType = msgspec.UNSET
    keep_backing: Literal[True] | msgspec.UnsetType = msgspec.UNSET


S = TypeVar("S", Manifest, Accept, Release, Running, Decline, Decision)


def signed(
    statement: Manifest | Accept | Release | Running | Decline | Decision, key: dsse.SigningKey
) -> bytes:
    """The statement's envelope. ValueError past MAX_STATEMENT_BYTES."""
    payload = canonical.encoded(statement)
    envelope = dsse.envelope(statement.TYPE, payload, [key])
    if len(envelope) > MAX_STATEMENT_BYTES:
        raise ValueError(f"a statement of {len(envelope)} bytes is larger than the protocol allows")
    return envelope


def opened(envelope: bytes, kind: type[S], signer: dsse.PublicKey) -> S:
    """The statement, once this very key is seen to have signed it.

    IntegrityError of kind `signature` or `malformed-statement`.
    """
    trusted = {dsse.key_id(signer): signer}
    payload = dsse.opened(envelope, kind.TYPE, trusted, limit=MAX_STATEMENT_BYTES)
    statement = canonical.decoded(payload, kind)
    if statement.version != VERSION:
        raise _malformed(f"version {statement.version} of it is not known here")
    return statement


def digest(envelope: bytes) -> Digest:
    """How the next statement names this one."""
    return sha256(envelope)


def check_move(statement: Manifest | Accept | Release | Running | Decline, expected: Move) -> None:
    """IntegrityError(kind="wrong-statement") when it is about another hand-over."""
    if statement.move != expected:
        raise IntegrityError(
            f"the statement is about {statement.move}, this is {expected}",
            kind="wrong-statement",
            remedy="somebody may be replaying statements: check what stands between the hosts",
        )


def check_answers(named: str, envelope: bytes, what: str) -> None:
    """IntegrityError(kind="wrong-statement") unless `named` is the digest of the envelope it must answer."""
    if named != digest(envelope):
        raise IntegrityError(
            f"the statement answers another {what} than the one that was signed",
            kind="wrong-statement",
            remedy="keep both hosts' receipts and journals, and find out which of them changed it",
        )


def written_disks(disks: Iterable[DiskContent]) -> Disks:
    """As they stand in a statement."""
    return tuple(_written(one) for one in sorted(disks, key=_name)) or msgspec.UNSET


def read_disks(disks: Disks) -> tuple[DiskContent, ...]:
    read = () if isinstance(disks, msgspec.UnsetType) else disks
    return tuple(
        DiskContent(one.name, one.size, Digest(one.root), Beneath(one.beneath or "")) for one in read
    )


def disk_differences(sent: Iterable[DiskContent], arrived: Iterable[DiskContent]) -> tuple[str, ...]:
    """A sentence for each disk that is not the same on both hosts."""
    here, there = ({one.name: one for one in disks} for disks in (sent, arrived))
    names = sorted(here.keys() | there.keys())
    return tuple(f"the disk {name} is not the same" for name in names if here.get(name) != there.get(name))


def _written(disk: DiskContent) -> Disk:
    beneath = cast(Any, disk.beneath.value or msgspec.UNSET)
    return Disk(name=disk.name, size=disk.size, root=disk.root, beneath=beneath)


def _name(disk: DiskContent) -> str:
    return disk.name


def differences(sent: Carried, arrived: Carried) -> tuple[str, ...]:
    """What the two hosts saw differently, a sentence each; nothing when they agree."""
    found = []
    if _by_stream(sent) != _by_stream(arrived) or len(_by_stream(sent)) != len(sent.roots):
        found.append("the streams' transcript roots differ")
    if sent.payload_bytes != arrived.payload_bytes:
        found.append(f"{sent.payload_bytes} bytes were sent, {arrived.payload_bytes} arrived")
    if sent.blobs != arrived.blobs:
        found.append("the vTPM's state blobs differ")
    if sent.vtpm is None or arrived.vtpm is None:
        if sent.vtpm is not arrived.vtpm:
            found.append("only one host could read the vTPM's identity")
        return tuple(found)
    for what in ("ek_name", "pcrs", "nv"):
        if getattr(sent.vtpm, what) != getattr(arrived.vtpm, what):
            found.append(f"the vTPM's {what} differ")
    if sent.vtpm.permanent is not None and arrived.vtpm.permanent not in {None, sent.vtpm.permanent}:
        found.append("the vTPM's permanent state differs")
    return tuple(found)


def _by_stream(carried: Carried) -> dict[tuple[int, str], StreamRoot]:
    return {(root.stream, root.direction): root for root in carried.roots}


def encode_request(request: MigrationRequest) -> bytes:
    """The payload that an operator signs."""
    disks = request.disks
    return canonical.encoded(
        _Request(
            VERSION,
            request.operator,
            request.procedure,
            request.vm,
            request.source,
            request.destination,
            request.mode,
            request.nonce,
            request.issued_at,
            request.not_after,
            disks.names or msgspec.UNSET,
            cast(Any, disks.format or msgspec.UNSET),
            True if disks.incremental else msgspec.UNSET,
            cast(Any, _said(disks.storage_mode)),
            disks.replacement or msgspec.UNSET,
            True if disks.keep_backing else msgspec.UNSET,
        )
    )


def _said(mode: StorageMode) -> str | msgspec.UnsetType:
    """A request that leaves it open is as it was before there was a choice."""
    return msgspec.UNSET if mode is StorageMode.AUTO else mode.value


def peek_request(envelope: bytes) -> MigrationRequest:
    """What it claims to ask, nothing verified: only good for looking up whose key to verify it with.

    IntegrityError of kind `signature` or `malformed-statement` when it cannot be read.
    """
    read = dsse.parse(envelope, limit=MAX_STATEMENT_BYTES)
    if read.payload_type != REQUEST_TYPE:
        raise _malformed(f"it is a {read.payload_type[:100]!r}, not a request")
    return _decode_request(read.payload)


def open_request(envelope: bytes, trusted: Mapping[str, dsse.PublicKey]) -> MigrationRequest:
    """The request, once one of these keys (by `dsse.key_id`) signed it."""
    return _decode_request(dsse.opened(envelope, REQUEST_TYPE, trusted, limit=MAX_STATEMENT_BYTES))


def _decode_request(payload: bytes) -> MigrationRequest:
    read = canonical.decoded(payload, _Request)
    if read.version != VERSION:
        raise _malformed(f"version {read.version} of it is not known here")
    try:
        return MigrationRequest(
            OperatorName(checked_name(read.operator, "operator")),
            read.procedure,
            VmName(checked_name(read.vm, "VM")),
            HostName(checked_name(read.source, "source")),
            HostName(checked_name(read.destination, "destination")),
            read.mode,
            read.nonce,
            read.issued_at,
            read.not_after,
            DisksAsked(
                read.disks or (),
                read.disk_format or "",
                read.incremental is True,
                StorageMode(read.storage_mode or StorageMode.AUTO),
                read.replacement or "",
                read.keep_backing is True,
            ),
        )
    except UsageError as error:
        raise _malformed(error.message) from error


def move_of(vm: VmName, source: HostName, destination: HostName, session: SessionId, epoch: int) -> Move:
    return Move(vm, source, destination, session, epoch)


def _malformed(problem: str) -> IntegrityError:
    return IntegrityError(
        f"the statement cannot be used: {problem}",
        kind="malformed-statement",
        remedy="sign a new one with the same version of Korora",
    )
