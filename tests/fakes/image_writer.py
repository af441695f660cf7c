"""Images in memory that can be written, and a host that crashes between two of their flushes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from fakes.image import MemoryImage
from korora.errors import ToolError, UsageError
from korora.model.image import Extent, Format, ImageFiles
from korora.ports.image import Range

T = TypeVar("T")


class Crash(Exception):  # noqa: N818  no error of the program's
    """The host is gone."""


@dataclass(slots=True)
class WritableMemory:
    """Implements `ports.image_writer.WritableImage`. `stored` is what outlives a crash."""

    stored: bytearray
    room: int | None = None
    crash_in: int | None = None
    """So many calls until the host crashes: of what was not flushed, some is stored then."""
    chosen: random.Random = field(default_factory=lambda: random.Random(1))
    put_bytes: int = 0
    _waiting: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.stored)

    def extents(self, offset: int = 0) -> Iterator[Extent]:
        return self._read().extents(offset)

    def written(self) -> Iterator[Range]:
        return self._read().written()

    def each(self, ranges: Iterable[Range], work: Callable[[memoryview], T]) -> Iterator[T]:
        return self._read().each(ranges, work)

    def put(self, offset: int, data: bytes) -> None:
        self._count()
        if not 0 <= offset <= offset + len(data) <= self.size:
            raise ToolError(f"there is no byte {offset + len(data)} to write", kind="unwritable")
        if self.room is not None:
            self.room -= len(data)
            if self.room < 0:
                raise ToolError("there is no room", kind="image-full")
        self._waiting.append((offset, bytes(data)))
        self.put_bytes += len(data)

    def zero(self, offset: int, length: int) -> None:
        self._count()
        if not 0 <= offset <= offset + length <= self.size:
            raise ToolError(f"there is no byte {offset + length} to write", kind="unwritable")
        self._waiting.append((offset, bytes(length)))

    def flush(self) -> None:
        self._count()
        for offset, data in self._waiting:
            self.stored[offset : offset + len(data)] = data
        self._waiting.clear()

    def _read(self) -> MemoryImage:
        seen = bytearray(self.stored)
        for offset, data in self._waiting:
            seen[offset : offset + len(data)] = data
        return MemoryImage(bytes(seen))

    def _count(self) -> None:
        if self.crash_in is None:
            return
        self.crash_in -= 1
        if self.crash_in < 0:
            for offset, data in self._waiting:
                # Any sector of it, in any order.
                for at in range(0, len(data), 512):
                    if self.chosen.random() < 0.5:
                        part = data[at : at + 512]
                        self.stored[offset + at : offset + at + len(part)] = part
            raise Crash


@dataclass(slots=True)
class MemoryWriter:
    """Implements `ports.image_writer.ImageWriter`: images by their path."""

    images: dict[Path, WritableMemory] = field(default_factory=dict)

    def create(self, image: ImageFiles, size: int) -> None:
        if image.path in self.images:
            raise UsageError(f"{image.path} is there already", kind="exists")
        self._check(image)
        self.images[image.path] = WritableMemory(bytearray(size))

    @contextmanager
    def open(self, image: ImageFiles) -> Iterator[WritableMemory]:
        self._check(image)
        opened = self.images[image.path]
        yield opened
        opened.flush()

    def _check(self, image: ImageFiles) -> None:
        if image.format not in {Format.RAW, Format.QCOW2}:
            raise UsageError(f"{image.path} is not written", kind="unwritable-format")
