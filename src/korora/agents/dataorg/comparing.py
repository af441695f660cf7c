"""Where two hosts' contents of one disk differ, found by hashes alone (W2).

First the leaves of the content tree, one for each chunk; then, of those chunks that differ, one hash for
each block of 4 KiB: guests write in those, and 2 % of a disk changed all over is in nearly every chunk.
A chunk's `grains` are its blocks' hashes, one after another:

    grain = H("Korora 2026 incremental: block", the block's bytes), its first 16 bytes

Pure. Promise: what is not named was the same when it was measured. Limit: two blocks of one hash are taken
for the same; the roots that both hosts sign in every move, over hashes of full length, would differ then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from blake3 import blake3

from korora.ports.image import Range
from korora.protocol.content_tree import CHUNK_BYTES

LEAF_BYTES: Final = 32
BLOCK_BYTES: Final = 4096
GRAIN_BYTES: Final = 16
GRAINS_BYTES: Final = CHUNK_BYTES // BLOCK_BYTES * GRAIN_BYTES
"""Of a whole chunk."""
_BLOCK: Final = blake3(derive_key_context="Korora 2026 incremental: block")
"""To be copied: the context is worked in once."""


def differing(here: bytes, there: bytes) -> list[int]:
    """The chunks whose leaves differ. ValueError unless both are leaves of disks of one size."""
    if len(here) != len(there):
        raise ValueError(f"{len(here)} and {len(there)} bytes are not the leaves of disks of one size")
    count = len(here) // LEAF_BYTES
    return [chunk for chunk in range(count) if _part(here, chunk) != _part(there, chunk)]


def _part(leaves: bytes, chunk: int) -> bytes:
    return leaves[chunk * LEAF_BYTES : (chunk + 1) * LEAF_BYTES]


def span(chunk: int, size: int) -> Range:
    """Where it is on a disk of so many bytes."""
    begin = chunk * CHUNK_BYTES
    return begin, min(CHUNK_BYTES, size - begin)


def grains(chunk: bytes | bytearray | memoryview) -> bytes:
    """The last block as long as it is."""
    view = memoryview(chunk)
    return b"".join(_grain(view[at : at + BLOCK_BYTES]) for at in range(0, len(view), BLOCK_BYTES))


def _grain(block: memoryview) -> bytes:
    state = _BLOCK.copy()
    state.update(block)
    return state.digest(GRAIN_BYTES)


def blocks(where: Range, here: bytes, there: bytes) -> Iterator[Range]:
    """Where the blocks of a chunk at `where` differ, neighbours as one. What only one has, differs."""
    offset, length = where
    held: Range | None = None
    for at in range(0, length, BLOCK_BYTES):
        number = at // BLOCK_BYTES * GRAIN_BYTES
        if here[number : number + GRAIN_BYTES] == there[number : number + GRAIN_BYTES]:
            continue
        begin, count = offset + at, min(BLOCK_BYTES, length - at)
        if held is not None and held[0] + held[1] == begin:
            held = held[0], held[1] + count
            continue
        if held is not None:
            yield held
        held = begin, count
    if held is not None:
        yield held
