"""The destination's side of docs/protocol/deduplication.md, for one disk: answers, and makes copies.

Promise: a place is written only with bytes that have the name which the source gave for it; what cannot be so
is told as lacking, and nothing stays held. No more is asked of the store than the disk has parts.
State after an error: the disk may have been written to, at places of that `put`; the session ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from korora.errors import PeerError
from korora.ports.content_store import Pins
from korora.protocol.dedup.allowance import Allowance
from korora.protocol.dedup.have import AnySaid, Coming, Held, Put, Settled, bits_of, check_put
from korora.protocol.dedup.names import Grain, name_of, split


class Disk(Protocol):
    """What is filled. Errors are the implementation's."""

    def read(self, offset: int, length: int) -> bytes: ...

    def write(self, offset: int, content: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class _Asked:
    coming: Coming
    names: list[bytes]
    held: list[bool]

    @property
    def kept(self) -> list[bytes]:
        return [name for name, there in zip(self.names, self.held, strict=True) if there]


class Answering:
    """For one thread. To be closed: what is still held then is given back."""

    def __init__(self, size: int, pins: Pins, disk: Disk) -> None:
        """`size`: of the disk, in bytes, as both hosts agreed."""
        self._size, self._pins, self._disk = size, pins, disk
        self._allowance = Allowance(size)
        self._asked: dict[int, _Asked] = {}
        self.copied_bytes = 0
        """That did not have to be sent."""

    def answer(self, said: AnySaid) -> Held | Settled:
        """What is said to a `coming` or a `put`. PeerError for anything that may not come now."""
        match said:
            case Coming():
                return self._hold(said)
            case Put():
                return self._put(said)
            case _:
                raise _unexpected("what only a destination says")

    def close(self) -> None:
        for asked in self._asked.values():
            self._pins.release(asked.kept)
        self._asked.clear()

    def _hold(self, coming: Coming) -> Held:
        self._allowance.take(coming)
        names = split(coming.names)
        held = self._pins.pin(names)
        self._asked[coming.batch] = _Asked(coming, names, held)
        return Held(coming.batch, bits_of(held))

    def _put(self, put: Put) -> Settled:
        asked = self._asked.get(put.batch)
        if asked is None:
            raise _unexpected(f"a put of batch {put.batch}, for which nothing was asked")
        check_put(put, asked.coming, asked.held, self._allowance.places(asked.coming.grain))
        with self._given_back(asked):
            lacking = [*self._copies(put, asked), *self._repeats(put, asked)]
        self._allowance.settled(put)
        return Settled(put.batch, tuple(sorted(lacking)))

    @contextmanager
    def _given_back(self, asked: _Asked) -> Iterator[None]:
        try:
            yield
        finally:
            del self._asked[asked.coming.batch]
            self._pins.release(asked.kept)

    def _copies(self, put: Put, asked: _Asked) -> Iterable[int]:
        for number, place in put.copies:
            if not self._fill(asked.coming.grain, place, self._pins.content(asked.names[number])):
                yield place

    def _repeats(self, put: Put, asked: _Asked) -> Iterable[int]:
        grain = asked.coming.grain
        for number, of, place in put.repeats:
            # A guest's write may have come in between, and the source cannot know.
            content = self._disk.read(of * grain, self._length(grain, of))
            if name_of(content) != asked.names[number] or not self._fill(grain, place, content):
                yield place

    def _fill(self, grain: Grain, place: int, content: bytes) -> bool:
        """False if the part of that place has another length: the last one's is its own."""
        if len(content) != self._length(grain, place):
            return False
        self._disk.write(place * grain, content)
        self.copied_bytes += len(content)
        return True

    def _length(self, grain: Grain, place: int) -> int:
        return min(int(grain), self._size - place * grain)


def _unexpected(what: str) -> PeerError:
    return PeerError(
        f"the other host sent {what}",
        kind="malformed-message",
        remedy="both hosts must run the same version of Korora",
    )
