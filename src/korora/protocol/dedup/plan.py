"""What becomes of each part of a disk: nothing (zeros), copied by the destination, repeated there, or sent.

Promise: every part that was given gets just one action, and a part that stands in several places is asked for
and sent once, as far back as is remembered, where they ascend. Pure; memory: some 150 bytes for each
remembered name.
Limit: what the destination has at a place that is to be repeated it looks at itself, and says what it lacks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final, TypeAlias

from korora.errors import PeerError
from korora.protocol.dedup.have import (
    MAX_BATCHES,
    MAX_NAMES,
    MAX_PLACES,
    Coming,
    Held,
    Put,
    Settled,
    answer_to,
    check_settled,
)
from korora.protocol.dedup.names import NAME_BYTES, UNITS_OF_A_CHUNK, Grain, units

REMEMBERED: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class Zeros:
    """So many parts of zeros, from `place` on."""

    place: int
    count: int


@dataclass(frozen=True, slots=True)
class Named:
    place: int
    name: bytes


@dataclass(frozen=True, slots=True)
class Copy:
    """The destination holds it: `number` among the names of the batch."""

    place: int
    number: int


@dataclass(frozen=True, slots=True)
class Repeat:
    """The destination was given it for the earlier place `of`; `number` among the names of the batch."""

    place: int
    of: int
    number: int


@dataclass(frozen=True, slots=True)
class Send:
    place: int


Part: TypeAlias = Zeros | Named
Action: TypeAlias = Zeros | Copy | Repeat | Send


def parts_of(chunk: int, content: bytes | bytearray | memoryview) -> Iterator[Part]:
    """The units of the disk's chunk of that number, in order; zeros that are neighbours as one."""
    first = chunk * UNITS_OF_A_CHUNK
    begun = count = 0
    for number, (_, name) in enumerate(units(content), first):
        if name is None:
            begun, count = (begun, count + 1) if count else (number, 1)
            continue
        if count:
            yield Zeros(begun, count)
            count = 0
        yield Named(number, name)
    if count:
        yield Zeros(begun, count)


@dataclass(frozen=True, slots=True)
class _Open:
    """A batch that waits for its answer. `numbers`: name → its number in the question."""

    parts: Sequence[Part]
    coming: Coming | None
    numbers: dict[bytes, int]
    earlier: dict[int, int]
    """Place → the place before it with the same name."""


@dataclass(slots=True)
class Plan:
    """The source's side, for one disk and one grain: `ask`, `actions`, `settle`, batch by batch.

    `numbers`: of batches; those of a disk's other grain come from the same.
    """

    grain: Grain
    remembered: int = REMEMBERED
    numbers: Iterator[int] = field(default_factory=count)
    _seen: OrderedDict[bytes, int] = field(default_factory=OrderedDict)
    _open: dict[int, _Open] = field(default_factory=dict)
    _puts: dict[int, Put] = field(default_factory=dict)

    def ask(self, parts: Iterable[Part]) -> tuple[int, Coming | None]:
        """The batch's number, and the question; None if there is nothing to ask: then nothing is said of it.

        ValueError beyond MAX_NAMES names or MAX_PLACES places, or while MAX_BATCHES are open.
        """
        given = tuple(parts)
        named = [part for part in given if isinstance(part, Named)]
        if len(self._open) + len(self._puts) >= MAX_BATCHES or len(named) > MAX_PLACES:
            raise ValueError("too much at a time: settle a batch first, or give fewer parts")
        numbers = {name: number for number, name in enumerate(dict.fromkeys(part.name for part in named))}
        if len(numbers) > MAX_NAMES:
            raise ValueError(f"{len(numbers)} names are more than {MAX_NAMES}")
        earlier = self._earlier(named)
        number = next(self.numbers)
        coming = Coming(number, self.grain, b"".join(numbers)) if numbers else None
        self._open[number] = _Open(given, coming, numbers, earlier)
        return number, coming

    def actions(self, number: int, held: Held | None) -> list[Action]:
        """For each part of that batch, in order. `held`: None if nothing was asked, or nobody answers."""
        batch = self._open[number]
        has = (
            answer_to(batch.coming, held)
            if batch.coming is not None and held is not None
            else [False] * len(batch.numbers)
        )
        actions = [self._action(part, batch, has) for part in batch.parts]
        self._puts[number] = Put(
            number,
            tuple((one.number, one.place) for one in actions if isinstance(one, Copy)),
            tuple((one.number, one.of, one.place) for one in actions if isinstance(one, Repeat)),
        )
        del self._open[number]
        return actions

    def put(self, number: int) -> Put:
        """What the destination is told, after that batch's parts that are sent."""
        return self._puts[number]

    def settle(self, settled: Settled) -> list[Send]:
        """The places that must be sent after all. PeerError for a batch that was not put."""
        put = self._puts.get(settled.batch)
        if put is None:
            raise PeerError(
                f"the other host settled batch {settled.batch}, which was not put",
                kind="malformed-message",
                remedy="both hosts must run the same version of Korora",
            )
        check_settled(settled, put)
        del self._puts[settled.batch]
        return [Send(place) for place in settled.lacking]

    def _action(self, part: Part, batch: _Open, has: list[bool]) -> Action:
        if isinstance(part, Zeros):
            return part
        number = batch.numbers[part.name]
        if has[number]:
            return Copy(part.place, number)
        of = batch.earlier.get(part.place)
        return Send(part.place) if of is None else Repeat(part.place, of, number)

    def _earlier(self, named: Iterable[Named]) -> dict[int, int]:
        """Looked up, and remembered: the oldest names are forgotten first.

        Parts may come in any order, but none repeats a place beyond its own: that one is asked for anew.
        """
        earlier: dict[int, int] = {}
        for part in named:
            of = self._seen.setdefault(part.name, part.place)
            if of < part.place:
                earlier[part.place] = of
            else:
                self._seen[part.name] = part.place
            while len(self._seen) > self.remembered:
                self._seen.popitem(last=False)
        return earlier


def questions(parts: Iterable[Part], most: int = MAX_NAMES) -> Iterator[list[Part]]:
    """The parts in batches that `Plan.ask` takes, of at most so many names."""
    batch: list[Part] = []
    names = 0
    for part in parts:
        batch.append(part)
        names += isinstance(part, Named)
        if names >= most or len(batch) >= MAX_PLACES:
            yield batch
            batch, names = [], 0
    if batch:
        yield batch


def asked_bytes(coming: Coming | None) -> int:
    """What the names of a question take on the wire."""
    return 0 if coming is None else coming.count * NAME_BYTES
