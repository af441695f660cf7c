"""Compressed extents of a btrfs: zlib, LZO, Zstandard. What comes out is never more than was stated.

Source: the btrfs on-disk format; of LZO's segments, the description in Linux, fs/btrfs/lzo.c.
"""

from __future__ import annotations

import sys
import zlib
from typing import Final

from dissect.util.compression import lzo

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_BYTES: Final = 1 << 17
"""Of an extent that is compressed, before and after; inline ones are smaller."""


def unpacked(data: bytes, kind: int, size: int, sector: int) -> bytes:
    """`size` bytes. A file's last sector may be packed up to the file's end only; then zeros follow, as Linux
    has it. OSError for anything else.
    """
    if size > MAX_BYTES or len(data) > MAX_BYTES + sector:
        raise OSError("a compressed extent is too large")
    try:
        match kind:
            case 1:
                content = zlib.decompressobj().decompress(data, size)
            case 2:
                content = _lzo(data, size, sector)
            case 3:
                content = zstd.ZstdDecompressor().decompress(data, size)
            case _:
                raise OSError(f"a kind of compression that is not known: {kind}")
    except (zlib.error, zstd.ZstdError, ValueError, RuntimeError, EOFError, TypeError) as error:
        raise OSError(f"a compressed extent is damaged: {error}") from error
    if len(content) <= size - sector:
        raise OSError("a compressed extent breaks off")
    return bytes(content[:size]).ljust(size, b"\x00")


def _lzo(data: bytes, size: int, sector: int) -> bytes:
    """Segments of one sector each; the length of one never stands across two sectors."""
    end = min(len(data), int.from_bytes(data[:4], "little"))
    at, parts, found = 4, [], 0
    while at + 4 <= end and found < size:
        length = int.from_bytes(data[at : at + 4], "little")
        at += 4
        if at + length > end:
            raise OSError("a compressed extent breaks off")
        parts.append(_segment(data[at : at + length], sector))
        found += len(parts[-1])
        at += length
        if (left := -at % sector) < 4:
            at += left
    return b"".join(parts)


def _segment(data: bytes, sector: int) -> bytes:
    """A distance that leads before the segment makes the decompressor panic, which is no Exception."""
    try:
        return bytes(lzo.decompress(data, False, sector))
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise OSError(f"a compressed extent is damaged: {error}") from error
