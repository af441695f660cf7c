"""Who watches the requests of a fake guest: a test writes them into `asked` while it is watched."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np

from korora.errors import ToolError
from korora.model.vm import VmDefinition
from korora.ports.sampling import DiskSample

SIZE = 64 << 20


@dataclass(slots=True)
class Requests:
    """What a guest asks of its disks: (disk, write, offset, length), and whether somebody watches."""

    asked: list[tuple[str, bool, int, int]] = field(default_factory=list)
    watched: bool = False
    samples: int = 0


class FakeSampler:
    """A RequestSampler. `gone`: whether the guest has ended."""

    def __init__(self, definition: VmDefinition, requests: Requests, gone: asyncio.Event) -> None:
        self._definition = definition
        self._requests = requests
        self._gone = gone
        self._alone = asyncio.Lock()

    async def sample(self, seconds: float) -> dict[str, DiskSample]:
        async with self._alone:
            self._alive()
            first = len(self._requests.asked)
            self._requests.watched = True
            try:
                await asyncio.sleep(seconds)
                self._alive()
            finally:
                self._requests.watched = False
            self._requests.samples += 1
            seen = self._requests.asked[first:]
            return {
                disk.name: DiskSample(
                    SIZE,
                    seconds,
                    *(
                        np.array(
                            [
                                (offset, length)
                                for name, write, offset, length in seen
                                if name == disk.name and write is kind
                            ],
                            np.int64,
                        ).reshape(-1, 2)
                        for kind in (False, True)
                    ),
                )
                for disk in self._definition.disks
            }

    async def close(self) -> None:
        pass

    def _alive(self) -> None:
        if self._gone.is_set():
            raise ToolError("the VM has ended", kind="vm-process-gone")
