"""A content store in memory. `Shelves` outlives it, as a folder does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from korora.errors import UsageError
from korora.model.stored import (
    SHARED,
    Added,
    Bounds,
    Collected,
    Found,
    Kind,
    Located,
    Origin,
    Scope,
    Stat,
    TenantName,
    Trouble,
    Verified,
)
from korora.policy import displacing
from korora.ports.clock import Clock, SystemClock
from korora.ports.content_store import Pins
from korora.protocol.content_tree import CHUNK_BYTES
from korora.protocol.dedup.names import is_zero, name_of, units


@dataclass
class Batch:
    """One origin. `inode`: of the file that was meant."""

    number: int
    kind: Kind
    path: Path
    used_at: int
    inode: int = 0
    parts: dict[bytes, Located | bytes] = field(default_factory=dict)
    size: int = 0


@dataclass
class Room:
    """One scope."""

    batches: dict[int, Batch] = field(default_factory=dict)
    counted: Counter[Trouble] = field(default_factory=Counter)
    told: list[Found] = field(default_factory=list)


@dataclass
class Shelves:
    rooms: dict[Scope, Room] = field(default_factory=dict)
    numbers: int = 0


class MemoryStore:
    """Implements `ports.content_store.ContentStore`."""

    def __init__(self, shelves: Shelves, bounds: Bounds, clock: Clock | None = None) -> None:
        self._shelves, self._bounds, self._clock = shelves, bounds, clock or SystemClock()

    def refer(self, scope: Scope, path: Path, parts: Iterable[Located], *, learnt: bool = False) -> Added:
        if not path.is_file():
            raise UsageError(f"{path} is no file", kind="no-image")
        real = path.resolve()
        each = ([(one.name, one)] for one in parts)
        added = {one.path for one in self._room(scope).batches.values() if one.kind is Kind.REFERENCE}
        kind = Kind.LEARNT if learnt and real not in added else Kind.REFERENCE
        return self._add(scope, kind, real, real.stat().st_ino, each)

    def keep(self, scope: Scope, path: Path, chunks: Iterable[bytes | bytearray | memoryview]) -> Added:
        def cut() -> Iterator[list[tuple[bytes, Located | bytes]]]:
            for chunk in chunks:
                if len(chunk) > CHUNK_BYTES:
                    raise ValueError("too long")
                if not is_zero(chunk):
                    whole = bytes(chunk)
                    small = [(name, whole[at : at + 4096]) for at, name in units(whole) if name]
                    yield [(name_of(whole), whole), *small]

        return self._add(scope, Kind.KEPT, path, 0, cut())

    @contextmanager
    def pins(self, tenant: TenantName | None, room: int) -> Iterator[Pins]:
        yield MemoryPins(self, ([] if tenant is None else [Scope(tenant)]) + [SHARED], room)

    def stat(self) -> list[Stat]:
        return [
            Stat(
                scope,
                len(room.batches),
                sum(len(batch.parts) for batch in room.batches.values()),
                sum(batch.kind is Kind.KEPT for batch in room.batches.values()),
                sum(batch.size for batch in room.batches.values()),
                0,
                *(room.counted[trouble] for trouble in Trouble),
            )
            for scope, room in sorted(self._shelves.rooms.items(), key=lambda one: one[0].folder)
        ]

    def origins(self, scope: Scope) -> list[Origin]:
        batches = self._room(scope).batches.values()
        return [
            Origin(scope, one.number, one.kind, one.path, len(one.parts), one.size, one.used_at)
            for one in sorted(batches, key=lambda one: (one.used_at, one.number), reverse=True)
        ]

    def verify(self, scope: Scope) -> Verified:
        room, sound = self._room(scope), 0
        before = Counter(room.counted)
        for batch in list(room.batches.values()):
            sound += sum(self._read(scope, batch, name) is not None for name in list(batch.parts))
        return Verified(
            scope,
            sound,
            room.counted[Trouble.CHANGED] - before[Trouble.CHANGED],
            room.counted[Trouble.GONE] - before[Trouble.GONE],
            (),
        )

    def collect(self, scope: Scope) -> Collected:
        room = self._room(scope)
        before = list(room.batches.values())
        self._make_room(room, None, 0, 0)
        gone = [one for one in before if one.number not in room.batches]
        return Collected(
            scope, len(gone), sum(len(one.parts) for one in gone), sum(one.size for one in gone), 0
        )

    def forget(self, scope: Scope, number: int) -> bool:
        return self._room(scope).batches.pop(number, None) is not None

    def close(self) -> None: ...

    # -- inside ----------------------------------------------------------------------------------------------

    def content(self, scope: Scope, name: bytes) -> bytes | None:
        for batch in list(self._room(scope).batches.values()):
            content = self._read(scope, batch, name)
            if content is not None:
                batch.used_at = int(self._clock.now())
                batch.kind = Kind.FOUND if batch.kind is Kind.LEARNT else batch.kind
                return content
        return None

    def found(self, scopes: Iterable[Scope]) -> list[Found]:
        told = [one for scope in scopes for one in self._room(scope).told]
        for scope in scopes:
            self._room(scope).told.clear()
        return told

    def _room(self, scope: Scope) -> Room:
        return self._shelves.rooms.get(scope, Room())

    def _add(
        self,
        scope: Scope,
        kind: Kind,
        path: Path,
        inode: int,
        groups: Iterable[Sequence[tuple[bytes, Located | bytes]]],
    ) -> Added:
        room = self._shelves.rooms.setdefault(scope, Room())
        self._shelves.numbers += 1
        batch = Batch(self._shelves.numbers, kind, path, int(self._clock.now()), inode)
        room.batches[batch.number] = batch
        complete = True
        most = displacing.learnt_at_most(self._bounds.entries) if kind is Kind.LEARNT else None
        for group in groups:
            if most is not None and len(batch.parts) + len(group) > most:
                complete = False
                break
            first = group[0][1]
            size = len(first) if isinstance(first, bytes) else None
            complete = self._make_room(room, batch, len(group), size)
            if not complete:
                break
            batch.size += size or 0
            for name, part in group:
                batch.parts.setdefault(name, part)
        for other in list(room.batches.values()):
            if other is not batch and _same(other, kind, path):
                del room.batches[other.number]
        return Added(batch.number, len(batch.parts), batch.size, complete)

    def _make_room(self, room: Room, mine: Batch | None, entries: int, size: int | None) -> bool:
        kind = Kind.REFERENCE if mine is None else mine.kind
        while True:
            there = [_origin(one) for one in room.batches.values()]
            many = sum(one.entries for one in there) + entries - self._bounds.entries
            large = 0 if size is None else sum(one.size for one in there) + size - self._bounds.bytes
            if many <= 0 and large <= 0:
                return True
            first = displacing.goes_first(there, kind, int(self._clock.now()))
            others = [one for one in first if mine is None or one.number != mine.number]
            if many > sum(one.entries for one in others) or large > sum(one.size for one in others):
                return False
            able = [one for one in others if (many > 0 and one.entries) or (large > 0 and one.size)]
            del room.batches[able[0].number]

    def _read(self, scope: Scope, batch: Batch, name: bytes) -> bytes | None:
        part = batch.parts.get(name)
        if part is None or isinstance(part, bytes):
            return part
        room = self._room(scope)
        if not batch.path.is_file() or batch.path.is_symlink() or batch.path.stat().st_ino != batch.inode:
            room.batches.pop(batch.number, None)
            batch.parts.clear()
            self._tell(scope, Trouble.GONE, str(batch.path))
            return None
        content = batch.path.read_bytes()[part.offset : part.offset + part.length]
        if name_of(content) != name:
            del batch.parts[name]
            self._tell(scope, Trouble.CHANGED, str(batch.path))
            return None
        return content

    def _tell(self, scope: Scope, trouble: Trouble, what: str) -> None:
        room = self._room(scope)
        room.counted[trouble] += 1
        room.told.append(Found(scope, trouble, what))


def _same(one: Batch, kind: Kind, path: Path) -> bool:
    return (one.kind is Kind.KEPT, one.path) == (kind is Kind.KEPT, path)


def _origin(one: Batch) -> Origin:
    return Origin(SHARED, one.number, one.kind, one.path, len(one.parts), one.size, one.used_at)


class MemoryPins:
    """Implements `ports.content_store.Pins`."""

    def __init__(self, store: MemoryStore, scopes: list[Scope], room: int) -> None:
        self._store, self._scopes, self._room = store, scopes, room
        self._held: dict[bytes, bytes] = {}
        self._times: Counter[bytes] = Counter()

    def pin(self, names: Sequence[bytes]) -> list[bool]:
        return [self._pin(name) for name in names]

    def content(self, name: bytes) -> bytes:
        return self._held[name]

    def release(self, names: Iterable[bytes]) -> None:
        for name in names:
            self._times[name] -= 1
            if self._times[name] <= 0:
                self._room += len(self._held.pop(name, b""))
                del self._times[name]

    def found(self) -> list[Found]:
        return self._store.found(self._scopes)

    def _pin(self, name: bytes) -> bool:
        if name not in self._held:
            found = (self._store.content(scope, name) for scope in self._scopes)
            content = next((one for one in found if one is not None), None)
            if content is None or len(content) > self._room:
                return False
            self._held[name] = content
            self._room -= len(content)
        self._times[name] += 1
        return True
