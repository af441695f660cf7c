"""What the destination has of a disk is named and not sent (W4): the source's side of
docs/protocol/deduplication.md.

First by chunks; those that it has not by their units. Where it turns out to have hardly any unit, only every
few windows are asked for by units, until it has more.
Promise: everything of a window is at the destination once it was delivered, whatever it said that it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Final

from korora.agents.io.copying import Taken, put
from korora.errors import PeerError
from korora.ports.moving_disks import DiskThere
from korora.protocol.content_tree import CHUNK_BYTES
from korora.protocol.dedup.have import AnySaid, Held, Settled
from korora.protocol.dedup.names import UNIT_BYTES, Grain
from korora.protocol.dedup.plan import Action, Named, Part, Plan, Send, parts_of, questions

Ask = Callable[[AnySaid], Awaitable[AnySaid]]
"""What the destination says to this, of one disk."""
_FEW: Final = 1 / 64
"""Of the units asked for: a name costs 1/128 of what it names, and its hash more time than sending."""
_RARELY: Final = 8
_PUT_UNITS: Final = 64


@dataclass(frozen=True, slots=True)
class _Batch:
    """`asked`: whether it has names; of one without, nothing is said."""

    number: int
    asked: bool


class Sharing:
    """Of one disk. A `Delivery` of `copying`."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        numbers = count()
        self._chunks = Plan(Grain.CHUNK, numbers=numbers)
        self._units = Plan(Grain.UNIT, numbers=numbers)
        self._asked = self._had = self._passed = 0
        self.sent_bytes = 0
        """Of what was delivered; the rest was there, or zeros."""

    async def __call__(self, window: Sequence[Taken], there: DiskThere) -> None:
        contents = {one.chunk: one.content for one in window if one.content is not None}
        if not contents:
            return
        parts = [Named(one.chunk, one.leaf) for one in window if one.content is not None]
        batch, actions = await self._asked_for(self._chunks, parts)
        missing = [one.place for one in actions if isinstance(one, Send)]
        if missing and self._by_units():
            await self._send_units(missing, contents, there)
        else:
            await asyncio.to_thread(self._send, missing, contents, there)
        await self._put(self._chunks, batch, contents, there)

    async def _send_units(
        self, chunks: Sequence[int], contents: Mapping[int, bytes], there: DiskThere
    ) -> None:
        def named() -> list[Part]:
            return list(chain.from_iterable(parts_of(chunk, contents[chunk]) for chunk in chunks))

        for parts in questions(await asyncio.to_thread(named)):
            batch, actions = await self._asked_for(self._units, parts)
            places = [one.place for one in actions if isinstance(one, Send)]
            self._learn(sum(isinstance(one, Named) for one in parts), len(places))
            await asyncio.to_thread(self._send_places, Grain.UNIT, places, contents, there)
            await self._put(self._units, batch, contents, there)

    async def _asked_for(self, plan: Plan, parts: Iterable[Part]) -> tuple[_Batch, list[Action]]:
        number, coming = plan.ask(parts)
        if coming is None:
            return _Batch(number, asked=False), plan.actions(number, None)
        held = await self._ask(coming)
        if not isinstance(held, Held):
            raise _unexpected(held)
        return _Batch(number, asked=True), plan.actions(number, held)

    async def _put(self, plan: Plan, batch: _Batch, contents: Mapping[int, bytes], there: DiskThere) -> None:
        """What it has, and what it was sent for another place."""
        if not batch.asked:
            plan.settle(Settled(batch.number, ()))
            return
        told = plan.put(batch.number)
        if told.repeats:
            await asyncio.to_thread(there.drain)
        settled = await self._ask(told)
        if not isinstance(settled, Settled):
            raise _unexpected(settled)
        lacking = [one.place for one in plan.settle(settled)]
        await asyncio.to_thread(self._send_places, plan.grain, lacking, contents, there)

    def _send(self, chunks: Iterable[int], contents: Mapping[int, bytes], there: DiskThere) -> None:
        """Blocking."""
        for chunk in chunks:
            put(there, chunk * CHUNK_BYTES, contents[chunk])
            self.sent_bytes += len(contents[chunk])

    def _send_places(
        self, grain: Grain, places: Sequence[int], contents: Mapping[int, bytes], there: DiskThere
    ) -> None:
        """Blocking. Neighbours in one request, within a chunk."""
        if grain is Grain.CHUNK:
            self._send(places, contents, there)
            return
        for first, length in _neighbours(places):
            chunk, at = divmod(first * UNIT_BYTES, CHUNK_BYTES)
            content = contents[chunk][at : at + length * UNIT_BYTES]
            there.put(first * UNIT_BYTES, content)
            self.sent_bytes += len(content)

    def _by_units(self) -> bool:
        if self._asked < CHUNK_BYTES // UNIT_BYTES or self._had >= self._asked * _FEW:
            return True
        self._passed = (self._passed + 1) % _RARELY
        return self._passed == 0

    def _learn(self, asked: int, sent: int) -> None:
        """What was long ago counts less."""
        self._asked = self._asked // 2 + asked
        self._had = self._had // 2 + asked - sent


def _neighbours(places: Sequence[int]) -> Iterable[tuple[int, int]]:
    """Ascending units as (first, how many), none of them across two chunks."""
    of_chunk = CHUNK_BYTES // UNIT_BYTES
    begin = length = 0
    for place in places:
        follows = length and place == begin + length and place % of_chunk and length < _PUT_UNITS
        if follows:
            length += 1
            continue
        if length:
            yield begin, length
        begin, length = place, 1
    if length:
        yield begin, length


def _unexpected(said: AnySaid) -> PeerError:
    return PeerError(
        f"the destination said {type(said).__name__.lower()} of a disk's parts where another answer was due",
        kind="malformed-message",
        remedy="both hosts must run the same version of Korora",
    )
