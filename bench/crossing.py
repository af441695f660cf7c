"""A disk crosses in one process, by the messages of docs/protocol/deduplication.md: chunks first, then units.

The destination is the one of `agents.dataplane.deduplication`, and fills a file, which the caller compares.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from korora.agents.dataplane.deduplication import Answering
from korora.ports.content_store import Pins
from korora.protocol.content_tree import CHUNK_BYTES
from korora.protocol.dedup.have import Settled, encode
from korora.protocol.dedup.names import UNIT_BYTES, UNITS_OF_A_CHUNK, Grain, is_zero, name_of
from korora.protocol.dedup.plan import Named, Part, Plan, Send, parts_of

_CHUNKS_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True)
class FileDisk:
    """Implements `agents.dataplane.deduplication.Disk`."""

    descriptor: int

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self.descriptor, length, offset)

    def write(self, offset: int, content: bytes) -> None:
        assert os.pwrite(self.descriptor, content, offset) == len(content)


@dataclass
class Crossing:
    """Bytes of parts `sent`, and of messages `said`, both ways."""

    source: Path
    arrived: FileDisk
    sent: int = 0
    said: int = 0

    def __post_init__(self) -> None:
        numbers = count()
        self._chunks, self._units = (Plan(grain, numbers=numbers) for grain in (Grain.CHUNK, Grain.UNIT))

    def move(self, pins: Pins) -> None:
        size = self.source.stat().st_size
        os.truncate(self.arrived.descriptor, size)
        with closing(Answering(size, pins, self.arrived)) as there:
            some: dict[int, bytes] = {}
            for number, chunk in chunks(self.source):
                some[number] = chunk
                if len(some) == _CHUNKS_AT_ONCE:
                    self._some(some, there)
                    some = {}
            self._some(some, there)

    def _some(self, some: dict[int, bytes], there: Answering) -> None:
        named: list[Part] = [Named(number, name_of(chunk)) for number, chunk in some.items()]

        def by_units(chunk: int) -> None:
            self._batch(self._units, there, list(parts_of(chunk, some[chunk])), send)

        def send(unit: int) -> None:
            at = unit % UNITS_OF_A_CHUNK * UNIT_BYTES
            content = some[unit // UNITS_OF_A_CHUNK][at : at + UNIT_BYTES]
            self.sent += len(content)
            self.arrived.write(unit * UNIT_BYTES, content)

        self._batch(self._chunks, there, named, by_units)

    def _batch(self, plan: Plan, there: Answering, parts: list[Part], send: Callable[[int], None]) -> None:
        number, coming = plan.ask(parts)
        held = None if coming is None else there.answer(coming)
        assert not isinstance(held, Settled)
        for one in plan.actions(number, held):
            if isinstance(one, Send):
                send(one.place)
        put = plan.put(number)
        settled = Settled(number, ()) if coming is None else there.answer(put)
        assert isinstance(settled, Settled)
        for one in plan.settle(settled):
            send(one.place)
        if coming is not None and held is not None:
            self.said += sum(len(encode(said)) for said in (coming, held, put, settled))


def chunks(disk: Path) -> Iterator[tuple[int, bytes]]:
    """Those that are not zero, by number."""
    with disk.open("rb") as file:
        number = 0
        while chunk := file.read(CHUNK_BYTES):
            if not is_zero(chunk):
                yield number, chunk
            number += 1
