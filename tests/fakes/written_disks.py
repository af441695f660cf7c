"""Disks in memory that somebody writes to while they are measured; bitmaps as QEMU keeps them, in rounds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from fakes.image import MemoryImage
from korora.model.image import NbdExport
from korora.ports.image import OpenImage, Range

GRANULARITY = 64 << 10


class There:
    """Implements `ports.moving_disks.DiskThere`; refuses a byte that is written twice without a flush."""

    def __init__(self, content: bytearray) -> None:
        self.content = content
        self.put_bytes = self.zeroed = 0
        self._touched: list[Range] = []

    def put(self, offset: int, data: bytes) -> None:
        self._touch(offset, len(data))
        self.content[offset : offset + len(data)] = data
        self.put_bytes += len(data)

    def zero(self, offset: int, length: int) -> None:
        self._touch(offset, length)
        self.content[offset : offset + length] = bytes(length)
        self.zeroed += length

    def drain(self) -> None:
        """It is there at once."""

    def flush(self) -> None:
        self._touched.clear()

    def leave(self) -> None:
        self.flush()

    def _touch(self, offset: int, length: int) -> None:
        assert 0 <= offset < offset + length <= len(self.content)
        assert not any(at < offset + length and offset < at + count for at, count in self._touched)
        self._touched.append((offset, length))


class WrittenDisks:
    """The parts of `ports.moving_disks.MovingDisks` and `ports.image.ImageReader` that measuring needs.

    `before_looking`: what happens on the host each time before somebody looks at a disk.
    """

    def __init__(self, content: Mapping[str, bytes]) -> None:
        self.content = {name: bytearray(data) for name, data in content.items()}
        self.before_looking: Callable[[], None] = lambda: None
        self._written: dict[str, list[Range] | None] = dict.fromkeys(content)

    @property
    def sizes(self) -> Mapping[str, int]:
        return {name: len(data) for name, data in self.content.items()}

    def write(self, name: str, offset: int, data: bytes) -> None:
        """The guest does."""
        self.content[name][offset : offset + len(data)] = data
        noted = self._written[name]
        if noted is not None:
            begin = offset // GRANULARITY * GRANULARITY
            end = min(-(-(offset + len(data)) // GRANULARITY) * GRANULARITY, len(self.content[name]))
            noted.append((begin, end - begin))

    @asynccontextmanager
    async def written(self, name: str) -> AsyncIterator[NbdExport]:
        self.before_looking()
        before, self._written[name] = self._written[name], []
        self._shown = name, before
        yield NbdExport(Path(name))

    @contextmanager
    def open_export(self, _: NbdExport) -> Iterator[OpenImage]:
        name, marked = self._shown
        yield MemoryImage(bytes(self.content[name]), marked=None if marked is None else sorted(marked))

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"measuring does not need {name}")
