"""A disk of which a part cannot be read, as it is copied: what is flagged so has its placeholder (E5).

Promise: only in chunks that a flag names, and there only for those blocks of 4 KiB that give an error; any
other error is raised. A block that had its placeholder keeps it until it was written again, so that whoever
measures and whoever copies read the same. Limit: of one disk, for one reader at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from typing import Final, TypeVar

from korora.errors import ToolError
from korora.model.flag import FlagId
from korora.model.image import Extent
from korora.ports.image import OpenImage, Range
from korora.protocol.content_tree import CHUNK_BYTES
from korora.protocol.flag import placeholder

T = TypeVar("T")
BLOCK_BYTES: Final = 4096


class Gaps:
    """`flags`: of the disk's chunks that cannot be read, by their numbers."""

    def __init__(self, flags: Mapping[int, FlagId]) -> None:
        self._flags = flags
        self._blocks: set[int] = set()

    @property
    def bytes(self) -> int:
        """That have placeholders, as far as was read."""
        return len(self._blocks) * BLOCK_BYTES

    def over(self, image: OpenImage) -> OpenImage:
        return _Patched(image, self)

    def touches(self, wanted: Range) -> bool:
        offset, length = wanted
        chunks = range(offset // CHUNK_BYTES, -(-(offset + length) // CHUNK_BYTES))
        return any(chunk in self._flags for chunk in chunks)

    def written(self, offset: int, length: int) -> None:
        """What the guest writes anew can be read anew."""
        self._blocks.difference_update(range(offset // BLOCK_BYTES, -(-(offset + length) // BLOCK_BYTES)))

    def patched(self, image: OpenImage, wanted: Range) -> bytearray:
        """ToolError(kind="unreadable") for what no flag names."""
        offset, length = wanted
        blocks = range(offset // BLOCK_BYTES, -(-(offset + length) // BLOCK_BYTES))
        if self._blocks.isdisjoint(blocks):
            try:
                return _read(image, offset, length)
            except ToolError as error:
                if error.kind != "unreadable":
                    raise
        content = bytearray()
        for block in blocks:
            begin = max(offset, block * BLOCK_BYTES)
            end = min(offset + length, (block + 1) * BLOCK_BYTES)
            content += self._block(image, block)[begin - block * BLOCK_BYTES : end - block * BLOCK_BYTES]
        return content

    def _block(self, image: OpenImage, block: int) -> bytearray:
        begin = block * BLOCK_BYTES
        length, flag = min(BLOCK_BYTES, image.size - begin), self._flags.get(begin // CHUNK_BYTES)
        if block not in self._blocks:
            try:
                return _read(image, begin, length)
            except ToolError as error:
                if error.kind != "unreadable" or flag is None:
                    raise
                self._blocks.add(block)
        assert flag is not None  # noqa: S101 only such blocks are added
        return bytearray(placeholder(flag, length))


class _Patched:
    """Implements `ports.image.OpenImage`."""

    def __init__(self, image: OpenImage, gaps: Gaps) -> None:
        self._image = image
        self._gaps = gaps

    @property
    def size(self) -> int:
        return self._image.size

    def extents(self, offset: int = 0) -> Iterator[Extent]:
        return self._image.extents(offset)

    def written(self) -> Iterator[Range]:
        for offset, length in self._image.written():
            self._gaps.written(offset, length)
            yield offset, length

    def each(self, ranges: Iterable[Range], work: Callable[[memoryview], T]) -> Iterator[T]:
        for flagged, some in groupby(ranges, key=self._gaps.touches):
            if not flagged:
                yield from self._image.each(some, work)
                continue
            for wanted in some:
                yield work(memoryview(self._gaps.patched(self._image, wanted)))


def _read(image: OpenImage, offset: int, length: int) -> bytearray:
    return next(iter(image.each([(offset, length)], bytearray)))
