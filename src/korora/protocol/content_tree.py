"""The hash tree of a disk's content: one root for what a guest sees, whatever format keeps it.

A disk of `size` bytes is cut into chunks of 1 MiB, and each of them into pieces of 64 KiB, the last as long
as it is. With BLAKE3 in its derive-key mode, H(context, data):

    piece = H("Korora 2026 content tree: piece", the piece's bytes)
    leaf  = piece of a chunk of at most 64 KiB; of a longer one
            H("Korora 2026 content tree: chunk", its pieces' hashes, one after another)
    node  = H("Korora 2026 content tree: node", left ‖ right)
    root  = H("Korora 2026 content tree: disk", size as 8 bytes, big-endian ‖ the topmost node)

The tree's shape is RFC 6962's: the left part of n leaves is the largest power of two below n. A disk of no
bytes has no topmost node, and nothing stands in its place. docs/IMAGES.md has vectors.
Promise: a run of zero chunks costs as much as the tree is high, so a sparse disk of exabytes is no work; the
state is as long as the tree is high, and can be kept and taken up again. Where a few bytes were written, a
piece is hashed again, and no whole chunk (why: docs/adr/0023).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final, TypeAlias

from blake3 import blake3

from korora.model.identity import Digest

CHUNK_BYTES: Final = 1 << 20
PIECE_BYTES: Final = 1 << 16
HASH_BYTES: Final = 32
_LEVELS: Final = 64
_PIECE: Final = blake3(derive_key_context="Korora 2026 content tree: piece")
"""To be copied: the context is worked in once, which is a quarter of the time for 4 KiB."""
_CHUNK: Final = "Korora 2026 content tree: chunk"
_NODE: Final = "Korora 2026 content tree: node"
_DISK: Final = "Korora 2026 content tree: disk"
_PACKAGE: Final = "Korora 2026 content tree: package"

Peak: TypeAlias = tuple[int, bytes]
"""(level, hash) of a complete subtree over 2**level leaves."""


def leaf(chunk: bytes | bytearray | memoryview) -> bytes:
    return leaf_of(pieces(chunk))


def pieces(chunk: bytes | bytearray | memoryview) -> bytes:
    """The hashes of its pieces, one after another."""
    if len(chunk) <= PIECE_BYTES:
        return piece(chunk)
    view = memoryview(chunk)
    return b"".join(piece(view[at : at + PIECE_BYTES]) for at in range(0, len(view), PIECE_BYTES))


def piece(data: bytes | bytearray | memoryview) -> bytes:
    state = _PIECE.copy()
    state.update(data)
    return state.digest()


def leaf_of(pieces: bytes | bytearray) -> bytes:
    """Of the chunk with these pieces."""
    if len(pieces) == HASH_BYTES:
        return bytes(pieces)
    return blake3(pieces, derive_key_context=_CHUNK).digest()


def node(left: bytes, right: bytes) -> bytes:
    return blake3(left + right, derive_key_context=_NODE).digest()


@cache
def zeros(level: int) -> bytes:
    """The subtree of 2**level chunks that hold nothing but zeros."""
    return node(zeros(level - 1), zeros(level - 1)) if level else leaf(bytes(CHUNK_BYTES))


def chunks_of(size: int) -> int:
    """How many chunks a disk of so many bytes has."""
    return -(-size // CHUNK_BYTES)


class ContentTree:
    """Leaves in order, from the first chunk on. `peaks` is all of its state, beside `count`."""

    def __init__(self, count: int = 0, peaks: Sequence[Peak] = ()) -> None:
        """ValueError if these are not the peaks of a tree of so many leaves."""
        levels = [bit for bit in reversed(range(_LEVELS)) if count >> bit & 1]
        if not 0 <= count < 1 << _LEVELS or [level for level, _ in peaks] != levels:
            raise ValueError(f"{len(peaks)} peaks do not belong to a tree of {count} leaves")
        if any(len(digest) != HASH_BYTES for _, digest in peaks):
            raise ValueError(f"a peak has {HASH_BYTES} bytes")
        self.count = count
        self._peaks = list(peaks)

    @property
    def peaks(self) -> tuple[Peak, ...]:
        return tuple(self._peaks)

    def add(self, digest: bytes) -> None:
        """The next chunk's leaf."""
        self._push(0, digest)

    def add_zeros(self, count: int) -> None:
        """So many whole chunks of zeros."""
        while count:
            # The largest complete subtree that may begin here, and fits.
            fits = count.bit_length() - 1
            aligned = (self.count & -self.count).bit_length() - 1 if self.count else fits
            level = min(fits, aligned)
            self._push(level, zeros(level))
            count -= 1 << level

    def root(self, size: int) -> Digest:
        """The root of a disk of so many bytes. ValueError unless just its chunks were added."""
        if self.count != chunks_of(size):
            raise ValueError(f"{self.count} chunks were added, a disk of {size} bytes has {chunks_of(size)}")
        top = b""
        for _, digest in reversed(self._peaks):
            top = node(digest, top) if top else digest
        whole = size.to_bytes(8, "big") + top
        return Digest("blake3:" + blake3(whole, derive_key_context=_DISK).hexdigest())

    def _push(self, level: int, digest: bytes) -> None:
        self.count += 1 << level
        while self._peaks and self._peaks[-1][0] == level:
            digest = node(self._peaks.pop()[1], digest)
            level += 1
        self._peaks.append((level, digest))


def package_root(disks: Sequence[tuple[str, Digest]]) -> Digest:
    """The root over the disks of a package: (name, root), whatever order they are in.

    H("Korora 2026 content tree: package", for each, by name: the length of the name in UTF-8 as 4 bytes,
    big-endian ‖ the name ‖ the 32 bytes of its root).
    """
    parts = []
    for name, root in sorted(disks):
        written = name.encode()
        parts.append(len(written).to_bytes(4, "big") + written + bytes.fromhex(root.removeprefix("blake3:")))
    return Digest("blake3:" + blake3(b"".join(parts), derive_key_context=_PACKAGE).hexdigest())
