"""A disk in memory, with extents as a test wants them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from korora.errors import ToolError
from korora.model.image import Extent
from korora.ports.image import Range

T = TypeVar("T")


@dataclass
class MemoryImage:
    """Implements `ports.image.OpenImage`. `cuts`: where extents end; `bad`: a byte that cannot be read."""

    content: bytes
    cuts: tuple[int, ...] = ()
    bad: int | None = None
    read: list[Range] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.content)

    def extents(self, offset: int = 0) -> Iterator[Extent]:
        ends = sorted({cut for cut in self.cuts if offset < cut < self.size} | {self.size})
        for end in ends:
            if end > offset:
                yield Extent(offset, end - offset, not any(self.content[offset:end]))
                offset = end

    def each(self, ranges: Iterable[Range], work: Callable[[memoryview], T]) -> Iterator[T]:
        for offset, length in ranges:
            if self.bad is not None and offset <= self.bad < offset + length:
                raise ToolError(f"bytes {offset} to {offset + length} cannot be read", kind="unreadable")
            self.read.append((offset, length))
            yield work(memoryview(bytearray(self.content[offset : offset + length])))
