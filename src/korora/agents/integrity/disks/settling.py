"""The content tree of a disk that is still written to: measured once, and again where it was written.

Of a chunk that was read the hashes of its pieces are remembered; from then on the pieces alone are read in
which it was written. So a guest that writes all over its disk has 64 KiB hashed for each of its writes, and
not 1 MiB.

Promise: after a measurement during which nobody wrote, `root` is that of the disk as it is. Memory: 32 bytes
for each MiB of disk, and half a KiB for each chunk that was read, of the latest `remembered`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from korora.agents.integrity.disks.content import read_runs
from korora.model.identity import Digest
from korora.ports.image import OpenImage, Range
from korora.protocol.content_tree import (
    CHUNK_BYTES,
    HASH_BYTES,
    PIECE_BYTES,
    ContentTree,
    chunks_of,
    leaf_of,
    pieces,
    zeros,
)

REMEMBERED: Final = 1 << 16
"""Chunks: 64 GiB of disk, in some 50 MiB."""
PIECES_OF_A_CHUNK: Final = CHUNK_BYTES // PIECE_BYTES
_LEAF_BYTES: Final = HASH_BYTES
_CHUNKS_AT_ONCE: Final = 4096


@dataclass(frozen=True, slots=True)
class _Written:
    """A part of a chunk that is read again: pieces from `first` on, or all of it."""

    chunk: int
    first: int
    where: Range


class Settling:
    """The leaves of one disk of `size` bytes."""

    def __init__(self, size: int, remembered: int = REMEMBERED) -> None:
        self._size = size
        self._remembered = remembered
        self._leaves = bytearray(_LEAF_BYTES * chunks_of(size))
        self._whole = False
        self._pieces: OrderedDict[int, bytearray] = OrderedDict()

    def measure(self, image: OpenImage) -> int:
        """Everything the first time, then what was written since; how many pieces were read for it.

        ToolError when one cannot be read: what was measured before stands, and the next time is the first.
        """
        whole, self._whole = self._whole, False
        count = self._again(image) if whole else self._everything(image)
        self._whole = True
        return count

    def adopt(self, leaves: bytes) -> None:
        """All of them, measured by whoever read the disk anyway. ValueError unless they are as many."""
        if len(leaves) != len(self._leaves):
            raise ValueError(f"{len(leaves)} bytes are not the leaves of a disk of {self._size} bytes")
        self._leaves[:] = leaves
        self._pieces.clear()
        self._whole = True

    def leaves(self) -> bytes:
        """Of all chunks, one after another. ValueError as `root`."""
        if not self._whole:
            raise ValueError("the disk was not measured as a whole")
        return bytes(self._leaves)

    def root(self) -> Digest:
        """ValueError unless the last measurement came to its end."""
        if not self._whole:
            raise ValueError("the disk was not measured as a whole")
        tree = ContentTree()
        for at in range(0, len(self._leaves), _LEAF_BYTES):
            tree.add(bytes(self._leaves[at : at + _LEAF_BYTES]))
        return tree.root(self._size)

    def _everything(self, image: OpenImage) -> int:
        self._pieces.clear()
        count = 0
        for run, found in read_runs(image, pieces):
            begin = run.first * _LEAF_BYTES
            one = zeros(0) if found is None else leaf_of(found)
            self._leaves[begin : begin + run.count * _LEAF_BYTES] = one * run.count
            count += run.count * PIECES_OF_A_CHUNK
            if found is not None:
                self._pieces[run.first] = bytearray(found)
                self._forget()
        return count

    def _again(self, image: OpenImage) -> int:
        written, count = _written(list(image.written()), self._size), 0
        while some := list(islice(written, _CHUNKS_AT_ONCE)):
            parts = list(self._to_read(some))
            for part, found in zip(parts, image.each([part.where for part in parts], pieces), strict=True):
                self._take(part, found)
                count += len(found) // HASH_BYTES
            for chunk, _ in some:
                self._leaves[chunk * _LEAF_BYTES : (chunk + 1) * _LEAF_BYTES] = leaf_of(self._pieces[chunk])
            self._forget()
        return count

    def _forget(self) -> None:
        """What was read longest ago."""
        while len(self._pieces) > self._remembered:
            self._pieces.popitem(last=False)

    def _to_read(self, written: Iterable[tuple[int, Sequence[int]]]) -> Iterator[_Written]:
        """Of each chunk in which these pieces were written."""
        for chunk, numbers in written:
            begin = chunk * CHUNK_BYTES
            if chunk in self._pieces:
                for number in numbers:
                    at = begin + number * PIECE_BYTES
                    yield _Written(chunk, number, (at, min(PIECE_BYTES, self._size - at)))
            else:
                yield _Written(chunk, 0, (begin, min(CHUNK_BYTES, self._size - begin)))

    def _take(self, part: _Written, found: bytes) -> None:
        known = self._pieces.setdefault(part.chunk, bytearray())
        self._pieces.move_to_end(part.chunk)
        known[part.first * HASH_BYTES : part.first * HASH_BYTES + len(found)] = found


def _written(ranges: Iterable[Range], size: int) -> Iterator[tuple[int, list[int]]]:
    """Each chunk that one of these ranges, in order, touches, and which of its pieces; once."""
    held, numbers = -1, list[int]()
    done = 0
    for offset, length in ranges:
        first, end = offset // PIECE_BYTES, -(-min(offset + length, size) // PIECE_BYTES)
        for one in range(max(first, done), end):
            chunk = one // PIECES_OF_A_CHUNK
            if chunk != held:
                if numbers:
                    yield held, numbers
                held, numbers = chunk, []
            numbers.append(one % PIECES_OF_A_CHUNK)
        done = max(done, end)
    if numbers:
        yield held, numbers
