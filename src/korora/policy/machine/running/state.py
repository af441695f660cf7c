"""A state t = (a, B, c, D) that runs: relations with the indexes that its readers ask for, and functions.

Promise: to look up, add or take away one tuple costs the same however many there are: what holds them is cut
into shards, so that no growth of one moves more than a few thousand entries.
Limit: in memory; who needs it again replays the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from operator import itemgetter
from typing import Any, Final, TypeAlias

from korora.policy.machine.language.vocabulary import FUNCTIONS, RELATIONS, Sort

Row: TypeAlias = tuple[Any, ...]
Positions: TypeAlias = tuple[int, ...]
Facts: TypeAlias = frozenset[tuple[str, Row]]
"""(relation, tuple) and (function, (argument, value))."""

SHARDS: Final = 512
"""For a large state; a small one needs but one."""
_NONE: Final[frozenset[Row]] = frozenset()

_Trail: TypeAlias = list[tuple[Callable[..., None], tuple[Any, ...]]]
"""What takes back each change, in the order of the changes."""


class Index:
    """The tuples of a relation by what stands at some positions.

    Most keys lead to one tuple; a set for each would take half of all memory.
    """

    def __init__(self, positions: Positions, shards: int) -> None:
        self.positions = positions
        self._count = shards
        self._shards: list[dict[Row, tuple[Row] | set[Row]]] = [{} for _ in range(shards)]
        self._key = _picker(positions)

    def find(self, key: Row) -> Iterable[Row]:
        return self._shards[hash(key) % self._count].get(key, _NONE)

    def add(self, row: Row) -> None:
        key = self._key(row)
        shard = self._shards[hash(key) % self._count]
        rows = shard.setdefault(key, (row,))
        if isinstance(rows, set):
            rows.add(row)
        elif rows[0] != row:
            shard[key] = {rows[0], row}

    def discard(self, row: Row) -> None:
        key = self._key(row)
        shard = self._shards[hash(key) % self._count]
        rows = shard.get(key, ())
        if isinstance(rows, set):
            rows.discard(row)
        if not rows or rows == (row,):
            shard.pop(key, None)


def _picker(positions: Positions) -> Callable[[Row], Row]:
    if len(positions) == 1:
        (position,) = positions
        return lambda row: (row[position],)
    return itemgetter(*positions)


class Table:
    """A relation: a set of tuples. `holds` is `in`, without the detour."""

    def __init__(self, shards: int) -> None:
        self._count = shards
        self._shards: list[set[Row]] = [set() for _ in range(shards)]
        self._indexes: dict[Positions, Index] = {}
        self.trail: _Trail | None = None
        self.holds: Callable[[Row], bool] = _membership(self._shards)

    def __contains__(self, row: Row) -> bool:
        return self.holds(row)

    def __iter__(self) -> Iterator[Row]:
        for shard in self._shards:
            yield from shard

    def __len__(self) -> int:
        return sum(map(len, self._shards))

    def add(self, row: Row) -> None:
        shard = self._shards[hash(row) % self._count]
        before = len(shard)
        shard.add(row)
        if len(shard) != before:
            for index in self._indexes.values():
                index.add(row)
            if self.trail is not None:
                self.trail.append((self.discard, (row,)))

    def discard(self, row: Row) -> None:
        shard = self._shards[hash(row) % self._count]
        before = len(shard)
        shard.discard(row)
        if len(shard) != before:
            for index in self._indexes.values():
                index.discard(row)
            if self.trail is not None:
                self.trail.append((self.add, (row,)))

    def index(self, positions: Positions) -> Callable[[Row], Iterable[Row]]:
        """How to find by these positions; it is kept from now on. Without positions: all."""
        if not positions:
            return lambda _: self
        if positions not in self._indexes:
            self._indexes[positions] = made = Index(positions, self._count)
            for row in self:
                made.add(row)
        return self._indexes[positions].find


def _membership(shards: list[set[Row]]) -> Callable[[Row], bool]:
    if len(shards) == 1:
        return shards[0].__contains__
    count = len(shards)
    return lambda row: row in shards[hash(row) % count]


class Column:
    """A function: the value of each argument it was given for; None elsewhere."""

    def __init__(self, shards: int) -> None:
        self._count = shards
        self._shards: list[dict[Any, Any]] = [{} for _ in range(shards)]
        self.trail: _Trail | None = None

    def get(self, argument: Any) -> Any:
        return self._shards[hash(argument) % self._count].get(argument)

    def set(self, argument: Any, value: Any) -> None:
        shard = self._shards[hash(argument) % self._count]
        if self.trail is not None:
            known = argument in shard
            self.trail.append((self.set, (argument, shard[argument])) if known else (shard.pop, (argument,)))
        shard[argument] = value

    def clear(self) -> None:
        for shard in self._shards:
            shard.clear()

    def items(self) -> Iterator[tuple[Any, Any]]:
        for shard in self._shards:
            yield from shard.items()


class State:
    """Everything that holds now. Changed by `Machine.decide` alone, once it runs."""

    def __init__(self, facts: Facts = frozenset(), *, shards: int = 1) -> None:
        """`shards`: SHARDS where many thousands of objects are expected."""
        self.relations = {name: Table(shards) for name in RELATIONS}
        self.functions = {name: Column(shards) for name in FUNCTIONS}
        for name, row in facts:
            if name in self.relations:
                self.relations[name].add(row)
            else:
                self.functions[name].set(*row)

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """Afterwards everything is as it was before. Quick where changes are few; never one in another."""
        trail: _Trail = []
        self._keep(trail)
        try:
            yield
        finally:
            self._keep(None)
            for undo, given in reversed(trail):
                undo(*given)

    def _keep(self, trail: _Trail | None) -> None:
        for table in self.relations.values():
            table.trail = trail
        for column in self.functions.values():
            column.trail = trail

    def facts(self) -> Facts:
        """Every fact: two states are the same state if these are equal."""
        rows = {(name, row) for name, table in self.relations.items() for row in table}
        values = {(name, pair) for name, column in self.functions.items() for pair in column.items()}
        return frozenset(rows | values)

    def known(self, sort: Sort) -> set[Any]:
        """All of this sort that any fact speaks of."""
        found: set[Any] = set()
        for name, table in self.relations.items():
            at = [position for position, its in enumerate(RELATIONS[name].sorts) if its is sort]
            found.update(row[position] for row in (table if at else ()) for position in at)
        for name, column in self.functions.items():
            pairs = list(column.items())
            if FUNCTIONS[name].sorts[0] is sort:
                found.update(argument for argument, _ in pairs)
            if FUNCTIONS[name].result is sort:
                found.update(value for _, value in pairs)
        return found
