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
from korora.policy import displacing
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

    def refer(self, path: Path, parts: Iterable[Located], *, learnt: bool) -> Added:
        to = reference_to(path)
        kind = Kind.LEARNT if learnt and not self._was_added(to.path) else Kind.REFERENCE
        origin = self._begin(kind, to.path, to.device, to.inode)
        most = displacing.learnt_at_most(self.bounds.entries) if kind is Kind.LEARNT else None
        entries, source, complete = 0, iter(parts), True
        while some := list(islice(source, _AT_ONCE if most is None else min(_AT_ONCE, most - entries))):
            complete = self.make_room(origin, kind, entries=len(some))
            if not complete:
                break
            entries += self.run(_added(origin, some))
        complete = complete and next(source, None) is None
        self._replace(origin, kind, to.path)
        return Added(origin, entries, 0, complete)

    def _was_added(self, path: Path) -> bool:
        """What the operator has added stays so when a daemon learns it anew."""
        return any((one.kind, one.path) == (Kind.REFERENCE, path) for one in self.run(Index.origins))

    def keep(self, path: Path, chunks: Iterable[Chunk]) -> Added:
        origin = self._begin(Kind.KEPT, path, 0, 0)
        entries = size = 0
        complete = True
        for chunk in chunks:
            if len(chunk) > CHUNK_BYTES:
                raise ValueError(f"a chunk of {len(chunk)} bytes is longer than {CHUNK_BYTES}")
            if is_zero(chunk):
                continue
            complete = self.make_room(origin, Kind.KEPT, entries=UNITS_OF_A_CHUNK + 1, size=len(chunk))
            if not complete:
                break
            entries += self.run(self._kept(origin, chunk))
            size += len(chunk)
        self._replace(origin, Kind.KEPT, path)
        return Added(origin, entries, size, complete)

    def make_room(
        self,
        origin: int = 0,
        kind: Kind = Kind.REFERENCE,
        *,
        entries: int | None = None,
        size: int | None = None,
    ) -> bool:
        """As `policy.displacing` says; False, and nothing goes, if it would not do. None: never mind."""
        while True:
            there, kept = self.run(Index.totals)
            many = 0 if entries is None else there + entries - self.bounds.entries
            large = 0 if size is None else kept + size - self.bounds.bytes
            if many <= 0 and large <= 0:
                return True
            first = displacing.goes_first(self.run(Index.origins), kind, self.now())
            others = [one for one in first if one.number != origin]
            if many > sum(one.entries for one in others) or large > sum(one.size for one in others):
                return False
            able = [one for one in others if (many > 0 and one.entries) or (large > 0 and one.size)]
            self.forget([able[0].number])

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
        kept = kind is Kind.KEPT
        before = [
            one.number
            for one in there
            if one.number < origin and (one.kind is Kind.KEPT, one.path) == (kept, path)
        ]
        if before:
            self.forget(before)


def _added(origin: int, parts: list[Located]) -> Callable[[Index], int]:
    return lambda index: index.add(origin, ((one.name, one.offset, one.length) for one in parts))
