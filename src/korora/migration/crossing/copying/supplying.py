"""What this host has of the disks that come to it, put there (W4): the destination's side of
docs/protocol/deduplication.md.

Promise: everything that was settled is in the images, and stays in their order with what comes; what is held
for the source is given back with `close`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

import structlog

from korora.agents.dataplane.deduplication import Answering
from korora.agents.io.copying import put
from korora.errors import ToolError
from korora.model.identity import VmName
from korora.model.stored import Found
from korora.ports.content_store import Pins
from korora.ports.contents import Contents
from korora.ports.moving_disks import DiskHere, MovingDisks
from korora.protocol.dedup import have

T = TypeVar("T")
log = structlog.get_logger("korora.store")


class Supplying:
    """The disks of one VM that arrive. `answer` is called by one at a time."""

    def __init__(self, contents: Contents, vm: VmName, disks: MovingDisks) -> None:
        self._contents = contents
        self._vm = vm
        self._disks = disks
        self._thread = ThreadPoolExecutor(1, "supplying")  # an index is for one thread
        self._open = ExitStack()
        self._pins: Pins | None = None
        self._over = False
        self._answering: dict[str, tuple[Answering, _Filled]] = {}

    async def answer(self, disk: str, said: bytes) -> bytes:
        """PeerError for what the protocol does not have; ToolError when the image cannot be written."""
        if disk not in self._answering:
            here = _Filled(await self._disks.fill(disk))
            self._answering[disk] = await self._in_thread(lambda: self._begun(disk, here)), here
        answering, here = self._answering[disk]

        def answered() -> bytes:
            told = answering.answer(have.decode(said))
            here.disk.drain()
            return have.encode(told)

        return await self._in_thread(answered)

    async def close(self) -> None:
        """What was put is on stable storage, and nothing is held any more. Idempotent; also after an error
        nothing is asked any more."""
        if self._over:
            return
        self._over = True
        try:
            await self._in_thread(self._closed)
        finally:
            self._thread.shutdown(wait=False)

    def _begun(self, disk: str, here: _Filled) -> Answering:
        if self._pins is None:
            try:
                self._pins = self._open.enter_context(self._contents.pins(self._vm))
            except ToolError as error:  # the source sends it, then
                log.warning("nothing is shared", vm=self._vm, kind=error.kind, problem=error.message)
                self._pins = _Nothing()
        return Answering(self._disks.sizes[disk], self._pins, here)

    def _closed(self) -> None:
        with self._open:
            for answering, here in self._answering.values():
                answering.close()
                here.disk.leave()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


class _Nothing:
    """Implements `ports.content_store.Pins`: nothing is held."""

    def pin(self, names: Sequence[bytes]) -> list[bool]:
        return [False] * len(names)

    def content(self, name: bytes) -> bytes:
        raise KeyError(name)

    def release(self, names: Iterable[bytes]) -> None:
        """None of them is held."""

    def found(self) -> list[Found]:
        return []


class _Filled:
    """Implements `agents.dataplane.deduplication.Disk`."""

    def __init__(self, disk: DiskHere) -> None:
        self.disk = disk

    def read(self, offset: int, length: int) -> bytes:
        self.disk.drain()
        return self.disk.read(offset, length)

    def write(self, offset: int, content: bytes) -> None:
        put(self.disk, offset, content)
