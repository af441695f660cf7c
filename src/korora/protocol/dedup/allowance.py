"""How much a source may ask of a destination for one disk: no more names than the disk has parts.

Promise: batches come in order, few are open, and nobody tries more names on a store than a disk of the agreed
size can need. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from korora.errors import PeerError
from korora.protocol.dedup.have import MAX_BATCHES, Coming, Put, Settled
from korora.protocol.dedup.names import Grain


@dataclass(slots=True)
class Allowance:
    """The destination's count, for one disk of `size` bytes."""

    size: int
    _asked: dict[Grain, int] = field(default_factory=lambda: dict.fromkeys(Grain, 0))
    _open: set[int] = field(default_factory=set)
    _next: int = 0

    def places(self, grain: Grain) -> int:
        """How many parts the disk has."""
        return -(-self.size // grain)

    def take(self, coming: Coming) -> None:
        """PeerError(kind="too-many-names" | "malformed-message") unless this may be asked now."""
        if coming.batch < self._next:
            raise PeerError(
                f"batch {coming.batch} of a disk's parts came where batch {self._next} was due",
                kind="malformed-message",
                remedy="both hosts must run the same version of Korora",
            )
        self._asked[coming.grain] += coming.count
        if self._asked[coming.grain] > self.places(coming.grain) or len(self._open) >= MAX_BATCHES:
            raise PeerError(
                "the other host asks for more parts than the disk has, or for too many at a time",
                kind="too-many-names",
                remedy="find out whether that host is what it should be: it may be trying out names",
            )
        self._next = coming.batch + 1
        self._open.add(coming.batch)

    def settled(self, done: Put | Settled) -> None:
        """That batch is not open any more. One without a question (all zeros) never was."""
        self._open.discard(done.batch)
