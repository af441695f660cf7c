"""The content tree of a disk that is still written to: measured once, and again where it was written.

Promise: after a measurement during which nobody wrote, `root` is that of the disk as it is. Memory: 32 bytes
for each MiB of disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from korora.agents.integrity.disks.content import leaves
from korora.model.identity import Digest
from korora.ports.image import OpenImage, Range
from korora.protocol.content_tree import CHUNK_BYTES, ContentTree, chunks_of, leaf

_LEAF_BYTES = 32


class Settling:
    """The leaves of one disk of `size` bytes."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._leaves = bytearray(_LEAF_BYTES * chunks_of(size))
        self._whole = False

    def measure(self, image: OpenImage) -> int:
        """Everything the first time, then what was written since; how many chunks that were.

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
        count = 0
        for run, found in leaves(image):
            begin = run.first * _LEAF_BYTES
            self._leaves[begin : begin + run.count * _LEAF_BYTES] = found * run.count
            count += run.count
        return count

    def _again(self, image: OpenImage) -> int:
        chunks = list(_chunks(image.written(), self._size))
        ranges = [
            (chunk * CHUNK_BYTES, min(CHUNK_BYTES, self._size - chunk * CHUNK_BYTES)) for chunk in chunks
        ]
        for chunk, found in zip(chunks, image.each(ranges, leaf), strict=True):
            self._leaves[chunk * _LEAF_BYTES : (chunk + 1) * _LEAF_BYTES] = found
        return len(chunks)


def _chunks(ranges: Iterable[Range], size: int) -> Iterator[int]:
    """Each chunk that one of these ranges, in order, touches; once."""
    done = 0
    for offset, length in ranges:
        first, end = offset // CHUNK_BYTES, chunks_of(min(offset + length, size))
        yield from range(max(first, done), end)
        done = max(done, end)
