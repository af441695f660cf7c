"""The head of a diff: what it turns into what, signed, in the first 8 KiB of the file (W2).

    "KORORA DISKDIFF\\n" ‖ length of the envelope, 4 bytes, big-endian ‖ envelope ‖ zeros up to 8192 bytes

It is written last: a diff that was not finished has no head. Promise: `opened` returns a statement that a
trusted key signed, in its one spelling, about sizes that a disk can have. Limit: whether the rest of the file
is the one that was signed is shown by reading it to its end (`records.read`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

import msgspec

from korora.errors import IntegrityError
from korora.model.identity import Digest
from korora.protocol import canonical, dsse
from korora.protocol.content_tree import CHUNK_BYTES
from korora.protocol.statements import Name, Time

TYPE: Final = "application/vnd.korora.disk-diff+json"
VERSION: Final = 1
MAGIC: Final = b"KORORA DISKDIFF\n"
HEAD_BYTES: Final = 8192
MAX_DISK_BYTES: Final = 1 << 50
_BEGIN: Final = len(MAGIC) + 4

Root = Annotated[Digest, msgspec.Meta(pattern="^blake3:[0-9a-f]{64}$")]
Size = Annotated[int, msgspec.Meta(ge=0, le=MAX_DISK_BYTES)]
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_DISK_BYTES // CHUNK_BYTES)]


class Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a guest sees of a disk: so many bytes, with this root (protocol/content_tree.py)."""

    size: Size
    root: Root


class DiskDiff(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`base` becomes `result`. `records`, `length` in bytes and `digest` are of what follows the head."""

    version: int = VERSION
    by: Name
    at: Time
    base: Content
    result: Content
    chunk_bytes: Literal[1048576] = CHUNK_BYTES
    records: Count
    length: Annotated[int, msgspec.Meta(ge=0, le=2 * MAX_DISK_BYTES)]
    digest: Root


def head(said: DiskDiff, keys: Sequence[dsse.SigningKey]) -> bytes:
    """HEAD_BYTES bytes."""
    envelope = dsse.envelope(TYPE, canonical.encoded(said), keys)
    return (MAGIC + len(envelope).to_bytes(4, "big") + envelope).ljust(HEAD_BYTES, b"\0")


def envelope_in(head: bytes) -> bytes:
    """Nothing verified. IntegrityError(kind="bad-diff") unless these are HEAD_BYTES bytes of a diff."""
    if len(head) != HEAD_BYTES or not head.startswith(MAGIC):
        if head and not head.strip(b"\0"):
            raise bad("it was never finished: its head is empty")
        raise bad("it does not begin as one")
    end = _BEGIN + int.from_bytes(head[len(MAGIC) : _BEGIN], "big")
    if end > HEAD_BYTES or head[end:].strip(b"\0"):
        raise bad("its head is damaged")
    return head[_BEGIN:end]


def peek(head: bytes) -> DiskDiff:
    """What it claims, nothing verified: only good for looking up whose key to verify it with."""
    read = dsse.parse(envelope_in(head))
    if read.payload_type != TYPE:
        raise bad(f"its statement is a {read.payload_type[:100]!r}")
    return _checked(canonical.decoded(read.payload, DiskDiff))


def opened(head: bytes, trusted: Mapping[str, dsse.PublicKey]) -> DiskDiff:
    """The statement, once one of these keys (by `dsse.key_id`) is seen to have signed it. IntegrityError."""
    payload = dsse.opened(envelope_in(head), TYPE, trusted)
    return _checked(canonical.decoded(payload, DiskDiff))


def _checked(said: DiskDiff) -> DiskDiff:
    if said.version != VERSION:
        raise bad(f"it is of version {said.version}, which is not known here")
    return said


def bad(problem: str) -> IntegrityError:
    return IntegrityError(
        f"this is no diff that can be used: {problem}",
        kind="bad-diff",
        remedy="have it made or sent again; if it stays so, find out who changed it",
    )
