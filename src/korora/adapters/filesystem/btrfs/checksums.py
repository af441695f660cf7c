"""The four checksums that a btrfs may have been made with.

Source: the btrfs on-disk format, btrfs.readthedocs.io, "Checksumming".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import google_crc32c
import xxhash


@dataclass(frozen=True, slots=True)
class Checksum:
    """`of`: `size` bytes, as they stand on the disk."""

    name: str
    size: int
    of: Callable[[bytes], bytes]


def _crc32c(data: bytes) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(4, "little")


def _xxhash64(data: bytes) -> bytes:
    return int(xxhash.xxh64_intdigest(data)).to_bytes(8, "little")


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _blake2b(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()


def name_hash(name: bytes) -> int:
    """Under which a folder has a name for who asks for it. Whatever the checksum is, this is a CRC-32C."""
    return int(google_crc32c.extend(1, name)) ^ 0xFFFFFFFF


CHECKSUMS = {
    0: Checksum("crc32c", 4, _crc32c),
    1: Checksum("xxhash64", 8, _xxhash64),
    2: Checksum("sha256", 32, _sha256),
    3: Checksum("blake2b", 32, _blake2b),
}
