"""A disk that QEMU serves, read from the file in which its bytes lie: one copy of each instead of four.

Promise: what was written is asked of QEMU, and of nobody else. Limit: for a file that QEMU reads and writes
through the kernel's cache, where both see the same at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from korora.model.image import Extent
from korora.ports.image import OpenImage, Range

T = TypeVar("T")


class Straight:
    """Implements `ports.image.OpenImage`."""

    def __init__(self, served: OpenImage, file: OpenImage) -> None:
        self._served = served
        self._file = file

    @property
    def size(self) -> int:
        return self._file.size

    def extents(self, offset: int = 0) -> Iterator[Extent]:
        return self._file.extents(offset)

    def written(self) -> Iterator[Range]:
        return self._served.written()

    def each(self, ranges: Iterable[Range], work: Callable[[memoryview], T]) -> Iterator[T]:
        return self._file.each(ranges, work)
