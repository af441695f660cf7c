"""What is put into one scope, within bounds, and what has to go for it.

Writing order: a copy's file, then the index. What ends in between is a leftover that a collection takes away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Protocol, TypeAlias, TypeVar

from korora.adapters.store.chunks import Chunks
from korora.adapters.store.fetching import KEPT_SHIFT
from korora.adapters.store.index import Index
from korora.adapters.store.rebuilding import parts_of
from korora.adapters.store.referred import reference_to
from korora.model.stored import Added, Bounds, Kind, Located
from korora.protocol.content_tree import CHUNK_BYTES
from korora.protocol.dedup.names import UNITS_OF_A_CHUNK, is_zero, name_of

T = TypeVar("T")
Chunk: TypeAlias = bytes | bytearray | memoryview
_AT_ONCE: Final = 16_384


class Run(Protocol):
    """Work with the index as it is, once more with a new one if it is of no use."""

    def __call__(self, work: Callable[[Index], T]) -> T: ...


@dataclass(frozen=True, slots=True)
class Filling:
    run: Run
    chunks: Chunks
    bounds: Bounds
    now: Callable[[], int]

    def refer(self, path: Path, parts: Iterable[Located]) -> Added:
        to = reference_to(path)
        origin = self._begin(Kind.REFERENCE, to.path, to.device, to.inode)
        entries, source, complete = 0, iter(parts), True
        while complete and (some := list(islice(source, _AT_ONCE))):
            complete = self.make_room(origin, entries=len(some))
            if complete:
                entries += self.run(_added(origin, some))
        self._replace(origin, Kind.REFERENCE, to.path)
        return Added(origin, entries, 0, complete)

    def keep(self, path: Path, chunks: Iterable[Chunk]) -> Added:
        origin = self._begin(Kind.KEPT, path, 0, 0)
        entries = size = 0
        complete = True
        for chunk in chunks:
            if len(chunk) > CHUNK_BYTES:
                raise ValueError(f"a chunk of {len(chunk)} bytes is longer than {CHUNK_BYTES}")
            if is_zero(chunk):
                continue
            complete = self.make_room(origin, entries=UNITS_OF_A_CHUNK + 1, size=len(chunk))
            if not complete:
                break
            entries += self.run(self._kept(origin, chunk))
            size += len(chunk)
        self._replace(origin, Kind.KEPT, path)
        return Added(origin, entries, size, complete)

    def make_room(self, origin: int = 0, *, entries: int | None = None, size: int | None = None) -> bool:
        """Of what was used least recently; False if that origin alone is too large. None: never mind."""
        while True:
            there, kept = self.run(Index.totals)
            many = entries is not None and there + entries > self.bounds.entries
            large = size is not None and kept + size > self.bounds.bytes
            if not many and not large:
                return True
            others = [
                one.number
                for one in self.run(Index.origins)
                if one.number != origin and ((many and one.entries > 0) or (large and one.size > 0))
            ]
            if not others:
                return False
            self.forget(others[-1:])

    def forget(self, origins: list[int]) -> None:
        for name in self.run(lambda index: index.forget(origins)):
            self.chunks.remove(name)
        self.run(Index.purge)

    def _kept(self, origin: int, chunk: Chunk) -> Callable[[Index], int]:
        def work(index: Index) -> int:
            name = name_of(chunk)
            with self.chunks.among_writers():
                self.chunks.write(name, chunk)
                base = index.add_kept(origin, name, len(chunk)) << KEPT_SHIFT
            return index.add(origin, parts_of(base, name, chunk))

        return work

    def _begin(self, kind: Kind, path: Path, device: int, inode: int) -> int:
        return self.run(lambda index: index.begin(kind, path, device, inode, self.now()))

    def _replace(self, origin: int, kind: Kind, path: Path) -> None:
        """What was said of it before is said no more."""
        there = self.run(Index.origins)
        before = [one.number for one in there if one.number < origin and (one.kind, one.path) == (kind, path)]
        if before:
            self.forget(before)


def _added(origin: int, parts: list[Located]) -> Callable[[Index], int]:
    return lambda index: index.add(origin, ((one.name, one.offset, one.length) for one in parts))
