"""The three vTPM state blobs as they travel: encrypted, and bound to one VM, one migration and one place in
it.

Promise: a blob opens only under the key, VM, session, epoch, type and flags it was sealed for, byte for
byte.
Limit: freshness comes from the key. The nonce is the blob's type, so a key must seal each type at most
once; `agents.vtpm.interposer.blob_guard` sees to that. The layout and test vectors are in
docs/protocol/vtpm.md.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from korora.errors import IntegrityError
from korora.model.identity import Secret, SessionId, VmName

MAGIC = b"KVB1"
LABEL = b"korora/1 vtpm blob\0"
KEY_BYTES = 32
SESSION_BYTES = 64
TAG_BYTES = 16
MAX_PLAINTEXT = 1 << 20

_HEADER = struct.Struct(">4sB3xII")  # magic, type, three zero bytes, state flags, length of the plaintext
MAX_BLOB = _HEADER.size + MAX_PLAINTEXT + TAG_BYTES


class BlobType(IntEnum):
    """PTM_BLOB_TYPE_* of swtpm's tpm_ioctl.h."""

    PERMANENT = 1
    VOLATILE = 2
    SAVESTATE = 3

    @property
    def label(self) -> str:
        return self.name.lower()


def blob_context(vm: VmName, session: SessionId, epoch: int) -> bytes:
    """What the blobs of one migration are bound to: session (64 bytes), epoch (u64), VM name (u8 ‖ UTF-8)."""
    raw_session, name = bytes.fromhex(session), vm.encode()
    if len(raw_session) != SESSION_BYTES:
        raise ValueError(f"a session id has {SESSION_BYTES} bytes, not {len(raw_session)}")
    return struct.pack(f">{SESSION_BYTES}sQB", raw_session, epoch, len(name)) + name


def seal_blob(key: Secret, context: bytes, kind: BlobType, flags: int, plaintext: bytes) -> bytes:
    """Header (16 bytes) ‖ AES-256-GCM ciphertext ‖ tag. An empty plaintext is sealed like any other."""
    header = _HEADER.pack(MAGIC, kind, flags, len(plaintext))
    return header + _cipher(key).encrypt(_nonce(kind), plaintext, LABEL + header + context)


def open_blob(key: Secret, context: bytes, kind: BlobType, flags: int, blob: bytes) -> bytes:
    """The plaintext, or IntegrityError(kind="vtpm-blob") that names the first check that failed."""
    header, body = blob[: _HEADER.size], blob[_HEADER.size :]
    if len(header) < _HEADER.size or len(blob) > MAX_BLOB:
        raise _refused(kind, f"is {len(blob)} bytes long")
    magic, named, named_flags, length = _HEADER.unpack(header)
    if magic != MAGIC or any(header[5:8]):
        raise _refused(kind, "is not a Korora blob: it was not encrypted for a move")
    if named != kind:
        raise _refused(kind, f"is of type {named}, not {int(kind)}")
    if named_flags != flags:
        raise _refused(kind, f"came with flags {flags:#x}, but was sealed with {named_flags:#x}")
    if length != len(body) - TAG_BYTES:
        raise _refused(kind, "has another length than its header says")
    try:
        return _cipher(key).decrypt(_nonce(kind), body, LABEL + header + context)
    except InvalidTag:
        raise _refused(
            kind, "is not authentic: changed, from another migration, or under another key"
        ) from None


def _cipher(key: Secret) -> AESGCM:
    if len(key) != KEY_BYTES:
        raise ValueError(f"a blob key has {KEY_BYTES} bytes, not {len(key)}")
    return AESGCM(key.reveal())


def _nonce(kind: BlobType) -> bytes:
    return bytes(11) + bytes([kind])


def _refused(kind: BlobType, why: str) -> IntegrityError:
    return IntegrityError(
        f"the vTPM's {kind.label} blob {why}",
        kind="vtpm-blob",
        remedy="the move was stopped; look for a faulty or hostile link between the hosts, then move again",
    )
