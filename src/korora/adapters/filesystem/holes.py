"""Zeros that a file has and that lie nowhere on the disk: how many of them are read.

A file of eight exabytes takes a few bytes of a disk. Who would hash all of its zeros comes to no end.
Promise: what is told here as a hole is one that the file system states; everything else is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from korora.protocol.content_tree import CHUNK_BYTES, ContentTree, chunks_of, leaf

LONG_BYTES: Final = 64 << 30
"""A longer file has the root of a tree in the place of its digest: zeros are no work in it."""
HOLES_BYTES: Final = 64 << 30
TREE: Final = "tree:"

Run = tuple[int, int]
"""(offset, length) in bytes."""
Holes = Callable[[], Iterable[Run]]
"""Those of a file, in order. An error of a reader where they cannot be told."""


def no_holes() -> tuple[Run, ...]:
    return ()


@dataclass(slots=True)
class Room:
    """How many zeros of holes are still read of a disk, all of its files together."""

    left: int = HOLES_BYTES

    def takes(self, length: int) -> bool:
        if length > self.left:
            return False
        self.left -= length
        return True


def whole_chunks(holes: Iterable[Run], size: int) -> Iterator[tuple[int, int]]:
    """(first, behind the last) of each hole that has whole ones. ValueError if they are out of order."""
    for begin, end in _joined(holes):
        first, behind = chunks_of(begin), min(end, size) // CHUNK_BYTES
        if first < behind:
            yield first, behind


def _joined(holes: Iterable[Run]) -> Iterator[tuple[int, int]]:
    """(begin, end) of those that touch each other, as one."""
    begin = end = 0
    for offset, length in holes:
        if offset < end or length < 0:
            raise ValueError("its holes overlap")
        if offset > end:
            yield begin, end
            begin = offset
        end = offset + length
    yield begin, end


def length_of(holes: Iterable[Run], size: int) -> int:
    """In bytes, of whole chunks."""
    return CHUNK_BYTES * sum(behind - first for first, behind in whole_chunks(holes, size))


def lead_of(holes: Iterable[Run], size: int) -> int:
    """How long what comes before the first hole is."""
    return next((first * CHUNK_BYTES for first, _ in whole_chunks(holes, size)), size)


class LongDigest:
    """Takes the bytes of a long file in order, or is told of chunks of zeros between them."""

    def __init__(self) -> None:
        self._tree = ContentTree()
        self._held = bytearray()
        self._size = 0

    def update(self, piece: bytes) -> None:
        self._size += len(piece)
        self._held += piece
        whole = len(self._held) // CHUNK_BYTES * CHUNK_BYTES
        for at in range(0, whole, CHUNK_BYTES):
            self._tree.add(leaf(self._held[at : at + CHUNK_BYTES]))
        del self._held[:whole]

    def zeros(self, chunks: int) -> None:
        """Where a chunk begins."""
        self._size += chunks * CHUNK_BYTES
        self._tree.add_zeros(chunks)

    def digest(self) -> str:
        if self._held:
            self._tree.add(leaf(self._held))
            self._held.clear()
        return TREE + self._tree.root(self._size).removeprefix("blake3:")


def between(holes: Iterable[Run], size: int) -> Iterator[tuple[int, int, int]]:
    """(offset, length) of what is to be read, and how many chunks of zeros follow it."""
    at = 0
    for first, behind in whole_chunks(holes, size):
        yield at, first * CHUNK_BYTES - at, behind - first
        at = behind * CHUNK_BYTES
    yield at, size - at, 0
