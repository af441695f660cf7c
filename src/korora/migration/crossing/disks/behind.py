"""How far a disk that is copied may be measured meanwhile: as far as the copy has read it.

So what is measured is still in the host's cache, and its storage is not read a second time beside the guest.
Limit: what the storage's own cache does not keep is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from korora.errors import ToolError
from korora.model.image import Extent
from korora.ports.image import OpenImage, Range

T = TypeVar("T")


class Behind:
    """Of all disks of a move. One thread may wait; the others' calls return at once."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._read: Mapping[str, int] = {}
        self._all_read = False
        self._over = False

    def reached(self, read: Mapping[str, int]) -> None:
        """By disk: how many bytes the copy has read, from the beginning on."""
        with self._changed:
            self._read = read
            self._changed.notify_all()

    def copied(self) -> None:
        """From now on nobody waits."""
        with self._changed:
            self._all_read = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Whoever waits, or would, has a ToolError(kind="aborted"), also once all was copied."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def wait_for(self, name: str, end: int | None) -> None:
        """Until all before byte `end` of it was read by the copy; None: until every disk was. Blocking."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or self._all_read or self._has_read(name, end))
            if self._over:
                raise ToolError(f"the disk {name} is not measured any more", kind="aborted")

    def _has_read(self, name: str, end: int | None) -> bool:
        return end is not None and self._read.get(name, 0) >= end


class Paced:
    """Implements `ports.image.OpenImage`: `image`, of which each part is read once `wait_for` returns."""

    def __init__(self, image: OpenImage, wait_for: Callable[[int], None]) -> None:
        self._image, self._wait_for = image, wait_for

    @property
    def size(self) -> int:
        return self._image.size

    def extents(self, offset: int = 0) -> Iterator[Extent]:
        return self._image.extents(offset)

    def written(self) -> Iterator[Range]:
        return self._image.written()

    def each(self, ranges: Iterable[Range], work: Callable[[memoryview], T]) -> Iterator[T]:
        return self._image.each(self._in_time(ranges), work)

    def _in_time(self, ranges: Iterable[Range]) -> Iterator[Range]:
        for offset, length in ranges:
            self._wait_for(offset + length)
            yield offset, length
