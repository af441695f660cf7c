"""A disk crosses in memory, by the messages of docs/protocol/deduplication.md: chunks first, then units.

What arrives is put together of what the store gave, of repeats, and of what was sent, and compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from korora.ports.content_store import Pins
from korora.protocol.content_tree import CHUNK_BYTES
from korora.protocol.dedup import have
from korora.protocol.dedup.names import UNIT_BYTES, UNITS_OF_A_CHUNK, Grain, is_zero, name_of, split
from korora.protocol.dedup.plan import Named, Part, Plan, Repeat, Send, parts_of

_CHUNKS_AT_ONCE: Final = 32
_REPEATS_FROM: Final = 1 << 18
"""Places that this destination can still read: it is no disk."""


@dataclass(slots=True)
class Crossing:
    """Bytes of parts `sent`, and of messages `said`, both ways."""

    pins: Pins
    sent: int = 0
    said: int = 0
    _chunks: Plan = field(default_factory=lambda: Plan(Grain.CHUNK))
    _units: Plan = field(default_factory=lambda: Plan(Grain.UNIT, _REPEATS_FROM))
    _arrived: dict[int, bytes] = field(default_factory=dict)

    def move(self, disk: Path) -> None:
        """AssertionError if anything arrives that is not what left."""
        some: dict[int, bytes] = {}
        for number, chunk in chunks(disk):
            some[number] = chunk
            if len(some) == _CHUNKS_AT_ONCE:
                self._some(some)
                some = {}
        self._some(some)

    def _some(self, some: dict[int, bytes]) -> None:
        named: list[Part] = [Named(number, name_of(chunk)) for number, chunk in some.items()]
        arrived: dict[int, bytes] = {}
        repeats, lacking = self._exchange(self._chunks, named, arrived)
        for number in [*repeats, *lacking]:
            arrived[number] = self._by_units(number, some[number])
        assert arrived == some

    def _by_units(self, number: int, chunk: bytes) -> bytes:
        """The chunk, as it is at the destination."""
        first = number * UNITS_OF_A_CHUNK
        arrived: dict[int, bytes] = {}
        repeats, lacking = self._exchange(self._units, list(parts_of(number, chunk)), arrived)
        for place in lacking:
            at = (place - first) * UNIT_BYTES
            arrived[place] = chunk[at : at + UNIT_BYTES]
            self.sent += len(arrived[place])
        self._arrived.update(arrived)
        for place, of in repeats.items():
            self._arrived[place] = self._arrived[of]
        while len(self._arrived) > 2 * _REPEATS_FROM:
            del self._arrived[next(iter(self._arrived))]
        whole = bytearray(len(chunk))
        for place in range(first, first + -(-len(chunk) // UNIT_BYTES)):
            unit = self._arrived.get(place, b"")
            at = (place - first) * UNIT_BYTES
            whole[at : at + len(unit)] = unit
        return bytes(whole)

    def _exchange(
        self, plan: Plan, parts: list[Part], arrived: dict[int, bytes]
    ) -> tuple[dict[int, int], list[int]]:
        """What is repeated (place → of), and what must be sent; what was held has arrived."""
        number, coming = plan.ask(parts)
        names = split(coming.names) if coming else []
        held = have.Held(number, have.bits_of(self.pins.pin(names))) if coming else None
        actions = plan.actions(number, held)
        put = plan.put(number)
        arrived.update({place: self.pins.content(names[which]) for which, place in put.copies})
        self.pins.release(names)
        settled = have.Settled(number, ())
        plan.settle(settled)
        self.said += sum(len(have.encode(one)) for one in (coming, held, put, settled) if one is not None)
        repeats = {one.place: one.of for one in actions if isinstance(one, Repeat)}
        return repeats, [one.place for one in actions if isinstance(one, Send)]


def chunks(disk: Path) -> Iterator[tuple[int, bytes]]:
    """Those that are not zero, by number."""
    with disk.open("rb") as file:
        number = 0
        while chunk := file.read(CHUNK_BYTES):
            if not is_zero(chunk):
                yield number, chunk
            number += 1
