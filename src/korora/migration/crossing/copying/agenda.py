"""In which order this daemon copies a disk: what holds data, as its guest uses it (W6)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from korora.agents.dataorg import schedule
from korora.agents.dataorg.popularity import Popularity
from korora.agents.integrity.disks.content import runs
from korora.ports.image import OpenImage
from korora.protocol.content_tree import CHUNK_BYTES, chunks_of

_LIKELY_BYTES_PER_S: Final = 128 << 20


class Agenda:
    """The chunks of a disk that may hold more than zeros, each once. To be iterated once; blocking.

    `bytes_per_s`: as fast as it is copied; 0: nobody knows.
    """

    def __init__(self, image: OpenImage, habits: Popularity | None, bytes_per_s: int = 0) -> None:
        self._image = image
        self._habits = habits
        self._takes_s = image.size / (bytes_per_s or _LIKELY_BYTES_PER_S)
        self._count = 0

    @property
    def bytes(self) -> int:
        """Of all of them: nothing before the first was given."""
        return min(self._count * CHUNK_BYTES, self._image.size)

    def __iter__(self) -> Iterator[int]:
        size = self._image.size
        for run in schedule.order(chunks_of(size), self._wanted(), self._habits, move_s=self._takes_s):
            yield from range(run.first, run.end)

    def _wanted(self) -> Iterator[schedule.Run]:
        for run in runs(self._image.extents(), self._image.size):
            if not run.zero:
                self._count += run.count
                yield schedule.Run(run.first, run.count)
