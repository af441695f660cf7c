"""Diffs in memory, made record by record, so that each can be wrong in one place."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric import ed25519

from korora.protocol import dsse
from korora.protocol.content_tree import CHUNK_BYTES, ContentTree, leaf
from korora.protocol.disk_diff.chunks import BLOCK_BYTES, Record, Zeros, blocks_of, data, length_of
from korora.protocol.disk_diff.records import Writing, read
from korora.protocol.disk_diff.statement import HEAD_BYTES, Content, DiskDiff, head, opened

KEY: Final = dsse.KeyPair(ed25519.Ed25519PrivateKey.from_private_bytes(bytes([7] * 32)))
OTHER_KEY: Final = dsse.KeyPair(ed25519.Ed25519PrivateKey.from_private_bytes(bytes([8] * 32)))
TRUSTED: Final[Mapping[str, dsse.PublicKey]] = {KEY.key_id: KEY.public_key()}


def content_of(disk: bytes) -> Content:
    tree = ContentTree()
    for at in range(0, len(disk), CHUNK_BYTES):
        tree.add(leaf(disk[at : at + CHUNK_BYTES]))
    return Content(len(disk), tree.root(len(disk)))


def records_of(base: bytes, result: bytes) -> list[Record]:
    """By the bytes alone, block by block."""
    made: list[Record] = []
    for chunk in range(-(-len(result) // CHUNK_BYTES)):
        begin = chunk * CHUNK_BYTES
        old, new = base[begin : begin + CHUNK_BYTES], result[begin : begin + CHUNK_BYTES]
        if old == new:
            continue
        if not new.strip(b"\0"):
            made.append(Zeros(chunk, 1))
        elif len(old) != len(new):
            made.append(data(chunk, leaf(new), blocks_of(len(new)), new))
        else:
            bits = 0
            for block in range(-(-len(new) // BLOCK_BYTES)):
                part = slice(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)
                bits |= (old[part] != new[part]) << (255 - block)
            made.append(data(chunk, leaf(new), bits, new))
    return made


def diff_of(
    base: bytes,
    result: bytes,
    records: Iterable[Record] | None = None,
    key: dsse.SigningKey = KEY,
    changed: Mapping[str, object] | None = None,
) -> bytes:
    """The file. `changed`: of the statement, before it is signed."""
    writing = Writing()
    body = b"".join(
        writing.add(one) for one in (records if records is not None else records_of(base, result))
    )
    body += writing.end()
    said = DiskDiff(
        by="alice",
        at=1,
        base=content_of(base),
        result=content_of(result),
        records=writing.records,
        length=writing.length,
        digest=writing.digest,
    )
    wrong: dict[str, Any] = dict(changed or {})
    return head(msgspec.structs.replace(said, **wrong), [key]) + body


def read_whole(file: bytes) -> tuple[DiskDiff, list[Record]]:
    more = io.BytesIO(file)
    said = opened(more.read(HEAD_BYTES), TRUSTED)
    return said, list(read(more.read, said))


def applied(base: bytes, file: bytes) -> bytes:
    """What it makes of `base`, in memory and by the bytes alone."""
    said, records = read_whole(file)
    result = bytearray(base[: said.result.size].ljust(said.result.size, b"\0"))
    for one in records:
        for chunk in range(one.first, one.end):
            length = length_of(chunk, said.result.size)
            begin = chunk * CHUNK_BYTES
            old = bytes(result[begin : begin + length])
            result[begin : begin + length] = (
                bytes(length) if isinstance(one, Zeros) else one.patched(old, length)
            )
    return bytes(result)
