"""What a host has of disks that come to it, in memory; what it is to learn is noted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fakes.content_store import MemoryStore, Shelves
from korora.model.identity import VmName
from korora.model.stored import SHARED, Bounds
from korora.ports.content_store import Pins


@dataclass
class FakeContents:
    """Implements `ports.contents.Contents`; all of it is shared. `room`: for one migration."""

    shelves: Shelves = field(default_factory=Shelves)
    room: int = 64 << 20
    learnt: list[tuple[VmName, Path]] = field(default_factory=list)

    def put(self, *chunks: bytes) -> None:
        self._store().keep(SHARED, Path("a template"), chunks)

    def shares(self, _: VmName) -> bool:
        return bool(self._store().origins(SHARED))

    @contextmanager
    def pins(self, _: VmName) -> Iterator[Pins]:
        with self._store().pins(None, self.room) as pins:
            yield pins

    def learn(self, vm: VmName, disks: Sequence[Path]) -> None:
        self.learnt += [(vm, path) for path in disks]

    def _store(self) -> MemoryStore:
        return MemoryStore(self.shelves, Bounds(1 << 30, 1 << 20))
