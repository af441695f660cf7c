"""What a guest reads often is brought to where it writes, so that it need not wait for the copying (A2).

Limit: what was popular when the move began; a VM that moves is not watched. It helps or does not: whatever
fails here is no news for the move.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress

from korora.errors import KororaError
from korora.model.image import NbdExport
from korora.ports.image import ImageReader
from korora.ports.moving_disks import MovingDisks
from korora.protocol.content_tree import CHUNK_BYTES


class Nearing:
    def __init__(self, disks: MovingDisks, images: ImageReader) -> None:
        self._disks = disks
        self._images = images
        self._enough = threading.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, popular: Mapping[str, Sequence[int]]) -> None:
        """Once its disks are outsourced. `popular`: of each the chunks of its content tree that are read
        often, the most read first."""
        self._task = asyncio.create_task(self._bring(popular))

    async def stop(self) -> None:
        """Before the disks are let go of. Idempotent."""
        self._enough.set()
        if self._task is not None:
            with suppress(Exception):
                await self._task

    async def _bring(self, popular: Mapping[str, Sequence[int]]) -> None:
        with suppress(KororaError):
            for name, size in self._disks.sizes.items():
                room = self._disks.room_nearer(name) // CHUNK_BYTES
                chunks = [chunk for chunk in popular.get(name, ()) if 0 <= chunk * CHUNK_BYTES < size]
                if chunks[:room]:
                    async with self._disks.nearer(name) as export:
                        await asyncio.to_thread(self._read, export, chunks[:room], size)

    def _read(self, export: NbdExport, chunks: Sequence[int], size: int) -> None:
        """One after the other: the guest's own reads wait behind all that is under way. Blocking."""
        ranges = [(at, min(CHUNK_BYTES, size - at)) for at in (chunk * CHUNK_BYTES for chunk in chunks)]
        with self._images.open_export(export) as image:
            for one in ranges:
                if self._enough.is_set():
                    return
                for _ in image.each([one], len):
                    pass
