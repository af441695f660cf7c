"""A disk's popularity as bytes, to be kept across a restart of the daemon.

    magic "KORHEAT" ‖ version (1 byte) ‖ size of the disk (8)
    ‖ half-life, time, seconds observed (8 each, IEEE 754) ‖ number n of chunks (4)
    ‖ n numbers of chunks (4 each) ‖ n counts of reads (4 each) ‖ n counts of writes (4 each)
    ‖ BLAKE3 over all before it (32 bytes)

All little-endian. Promise: what `decoded` takes is whole, and one that `encoded` could have made. The digest
shows damage, not malice: who may write the daemon's state folder may make popular what he likes.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
from blake3 import blake3

from korora.agents.dataorg.popularity import KEPT_MAX, Popularity
from korora.errors import IntegrityError

VERSION: Final = 1
_MAGIC: Final = b"KORHEAT"
_HEAD: Final = struct.Struct("<7sBQdddI")
_DIGEST_BYTES: Final = 32
_CHUNK_BYTES: Final = 12
RECORD_MAX_BYTES: Final = _HEAD.size + KEPT_MAX * _CHUNK_BYTES + _DIGEST_BYTES


def encoded(popularity: Popularity) -> bytes:
    chunks, reads, writes = popularity.counts()
    head = _HEAD.pack(
        _MAGIC,
        VERSION,
        popularity.size,
        popularity.half_life_s,
        popularity.at,
        popularity.observed_s,
        len(chunks),
    )
    body = head + b"".join(
        (chunks.astype("<u4").tobytes(), reads.astype("<f4").tobytes(), writes.astype("<f4").tobytes())
    )
    return body + blake3(body).digest()


def decoded(data: bytes) -> Popularity:
    """IntegrityError(kind="damaged-heat") for anything but a whole record of this version."""
    if len(data) < _HEAD.size + _DIGEST_BYTES or len(data) > RECORD_MAX_BYTES:
        raise _damaged(f"it has {len(data)} bytes")
    magic, version, size, half_life_s, at, observed_s, count = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise _damaged("it is something else")
    if version != VERSION:
        raise _damaged(f"it is of version {version}, this Korora reads version {VERSION}")
    if len(data) != _HEAD.size + count * _CHUNK_BYTES + _DIGEST_BYTES:
        raise _damaged(f"{count} chunks do not fill its {len(data)} bytes")
    if blake3(data[:-_DIGEST_BYTES]).digest() != data[-_DIGEST_BYTES:]:
        raise _damaged("its digest does not fit")
    chunks = np.frombuffer(data, "<u4", count, _HEAD.size).astype(np.uint32)
    reads = np.frombuffer(data, "<f4", count, _HEAD.size + 4 * count).astype(np.float32)
    writes = np.frombuffer(data, "<f4", count, _HEAD.size + 8 * count).astype(np.float32)
    try:
        return Popularity.restored(size, half_life_s, at, observed_s, (chunks, reads, writes))
    except ValueError as problem:
        raise _damaged(str(problem)) from problem


def _damaged(reason: str) -> IntegrityError:
    return IntegrityError(
        f"the record of a disk's popularity cannot be used: {reason}",
        kind="damaged-heat",
        remedy="remove it: what is popular is learnt anew within a minute",
    )
