"""A disk in memory, with the extents that somebody says it has."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from korora.errors import ToolError
from korora.model.image import Extent
from korora.ports.image import Range

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MemoryImage:
    """Implements `ports.image.OpenImage`. `broken`: bytes that cannot be read."""

    content: bytes
    said: Sequence[Extent] | None = None
    broken: Collection[int] = ()
    marked: Sequence[Range] | None = None  # as written

    @property
    def size(self) -> int:
        return len(self.content)

    def extents(self, offset: int = 0) -> Iterator[Extent]:
        for one in self.said if self.said is not None else [Extent(0, self.size, zero=False)]:
            begin = max(one.offset, offset)
            if begin < one.end:
                yield Extent(begin, one.end - begin, one.zero)

    def written(self) -> Iterator[Range]:
        yield from [(0, self.size)] * bool(self.size) if self.marked is None else self.marked

    def each(self, ranges: Iterable[Range], work: Callable[[memoryview], T]) -> Iterator[T]:
        for offset, length in ranges:
            if offset + length > self.size or any(offset <= one < offset + length for one in self.broken):
                raise ToolError(f"bytes {offset} to {offset + length} cannot be read", kind="unreadable")
            yield work(memoryview(self.content)[offset : offset + length])


def extents_of(lengths: Iterable[tuple[int, bool]]) -> list[Extent]:
    """(length, zero), one after the other."""
    made: list[Extent] = []
    for length, zero in lengths:
        made.append(Extent(made[-1].end if made else 0, length, zero))
    return made
