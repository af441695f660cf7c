"""Reading disk images that nobody vouches for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from korora.errors import ToolError
from korora.model.image import Checked, Extent, ImageFiles, NbdExport

T = TypeVar("T")
Range = tuple[int, int]
"""(offset, length) in bytes."""


class UnreadableError(ToolError):
    """A part of an image gave an error (kind="unreadable"): somewhere in these bytes.

    `unserved`: not they did, but whoever served them is gone, and nothing is said of them.
    """

    def __init__(self, message: str, wanted: Range, *, remedy: str = "", unserved: bool = False) -> None:
        super().__init__(message, kind="unreadable", remedy=remedy)
        self.offset, self.length = wanted
        self.unserved = unserved


class Readable(Protocol):
    """UnreadableError when a part cannot be read; nothing that was not read is ever given as zeros."""

    def each(self, ranges: Iterable[Range], work: Callable[[memoryview], T]) -> Iterator[T]:
        """What `work` makes of each range's bytes, in the order of the ranges; several are read at once.

        `work` is called in other threads; the bytes are its own only while it runs.
        """
        ...


class OpenImage(Readable, Protocol):
    """The content as a guest sees it. UnreadableError when a part cannot be read, IntegrityError when the
    image contradicts itself; nothing that was not read is ever given as zeros.
    """

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    def extents(self, offset: int = 0) -> Iterator[Extent]:
        """All of the content from `offset` on, in order and without gaps."""
        ...

    def written(self) -> Iterator[Range]:
        """What the bitmap of the export names, in order; all of it where there is none."""
        ...


class ImageReader(Protocol):
    def describe(self, image: ImageFiles) -> dict[str, Any]:
        """What QEMU says of the container, opening no other file. IntegrityError when it is damaged."""
        ...

    def check(self, image: ImageFiles) -> Checked:
        """What contradicts itself in the container's tables. Takes longer the larger these tables are."""
        ...

    def open(self, image: ImageFiles) -> AbstractContextManager[OpenImage]:
        """For reading, as the declared format, whatever its bytes look like."""
        ...

    def open_export(self, export: NbdExport) -> AbstractContextManager[OpenImage]:
        """For reading, what somebody serves already. ToolError(kind="unreadable") when nobody does."""
        ...
