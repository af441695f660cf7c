"""Each host's append-only log: what a leaf says, the signed tree head, and the proof that a leaf is in it.

Promise: whoever holds a proof knows that a host, by its own signature, committed itself to this entry at
this place. Limit: a host that shows different heads to different readers is found only when two of them
compare (`verify_growth`).
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from korora.errors import IntegrityError
from korora.protocol import canonical, dsse, merkle
from korora.protocol.statements import Name, Session, Sha256, Time

VERSION: Final = 1
HEAD_TYPE: Final = "application/vnd.korora.tree-head+json"
MAX_HEAD_BYTES: Final = 4096
MAX_PATH: Final = 64

Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class LogEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A leaf: `digest` names the envelope that was filed, signatures included."""

    version: int = VERSION
    kind: Literal["receipt", "decision"]
    vm: Name
    session: Session
    digest: Sha256

    def leaf(self) -> bytes:
        return canonical.encoded(self)


class InspectionEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A leaf: `digest` is of a report, or of what came of holding the VM against it (docs/INSPECTION.md)."""

    version: int = VERSION
    kind: Literal["inspection", "verification"]
    vm: Name
    digest: Sha256
    at: Time

    def leaf(self) -> bytes:
        return canonical.encoded(self)


class TreeHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`log` is the host whose log it is; `at` its clock in Unix seconds."""

    version: int = VERSION
    log: Name
    size: Count
    root: Hash
    at: Time


class LogProof(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A leaf's place under a signed head. `head` is the head's envelope, as JSON within JSON."""

    host: Name
    index: Count
    path: Annotated[tuple[Hash, ...], msgspec.Meta(max_length=MAX_PATH)]
    head: msgspec.Raw


def signed_head(log: str, size: int, node: merkle.NodeAt, *, at: int, key: dsse.SigningKey) -> bytes:
    """The envelope of this host's present tree head."""
    head = TreeHead(log=log, size=size, root=merkle.root(size, node), at=at)
    return dsse.envelope(HEAD_TYPE, canonical.encoded(head), [key])


def opened_head(envelope: bytes, log: str, signer: dsse.PublicKey) -> TreeHead:
    """The head of this host's log. IntegrityError of kind signature, malformed-statement, wrong-statement."""
    payload = dsse.opened(envelope, HEAD_TYPE, {dsse.key_id(signer): signer}, limit=MAX_HEAD_BYTES)
    head = canonical.decoded(payload, TreeHead)
    if (head.version, head.log) != (VERSION, log):
        raise _wrong(f"the tree head is that of {head.log}'s log, version {head.version}")
    return head


def proof(host: str, index: int, size: int, node: merkle.NodeAt, head: bytes) -> LogProof:
    """That leaf `index` is under `head`, which must be the head of the first `size` leaves."""
    path = merkle.inclusion_proof(index, size, node)
    return LogProof(host=host, index=index, path=path, head=msgspec.Raw(head))


def verify_proof(shown: LogProof, leaf: bytes, signer: dsse.PublicKey) -> TreeHead:
    """The signed head that the leaf is under. IntegrityError when it is not, or is not the host's."""
    head = opened_head(bytes(shown.head), shown.host, signer)
    if not merkle.verify_inclusion(leaf, shown.index, head.size, shown.path, head.root):
        raise _wrong(f"the entry is not at place {shown.index} of {shown.host}'s log")
    return head


def verify_growth(old: TreeHead, new: TreeHead, path: tuple[bytes, ...]) -> None:
    """IntegrityError(kind="log-rewritten") unless the newer head's log begins with the older one's."""
    if old.size == 0 and old.root == merkle.EMPTY_ROOT and old.log == new.log:
        return
    same_log = old.log == new.log
    if not same_log or not merkle.verify_consistency(old.size, new.size, old.root, new.root, path):
        raise IntegrityError(
            f"the log of {new.log} with {new.size} entries does not begin with its {old.size} older ones",
            kind="log-rewritten",
            remedy="the host's history was changed: keep both heads, they are the evidence",
        )


def verify_leaves(leaves: list[bytes], head: TreeHead) -> None:
    """IntegrityError(kind="log-rewritten") unless these leaves, all of them, give the signed root."""
    if len(leaves) != head.size or merkle.root_of(leaves) != head.root:
        raise IntegrityError(
            f"the {len(leaves)} entries of {head.log}'s log do not give the signed root over {head.size}",
            kind="log-rewritten",
            remedy="the log's file was changed: keep it and the head, they are the evidence",
        )


def _wrong(message: str) -> IntegrityError:
    return IntegrityError(
        message, kind="wrong-statement", remedy="ask the host for its log: korora log verify"
    )
