"""Strike at a chosen message of the control channel, which is a TLS record to whoever stands in the middle.

Limit: what is in a record nobody in the middle can see; the number of records of a clean migration tells.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from korora.lab.tampering import Action, Direction, Ended

_RECORD = struct.Struct(">BHH")  # type, version, length (RFC 8446, 5.1)
_TYPES = range(20, 24)


@dataclass
class Strike:
    """When record `number` (from 1) of `direction` arrives, do `then`, and after it `how`; None lets it pass.

    `seen` holds all lengths. Only the first control connection is struck: what the hosts do afterwards to
    settle it goes through.
    """

    direction: Direction = Direction.FORWARD
    number: int = 0
    then: Callable[[], None] = lambda: None
    how: Action | None = Action.CUT
    seen: dict[Direction, list[int]] = field(default_factory=lambda: {way: [] for way in Direction})
    done: bool = False

    def editor(self, direction: Direction) -> Records:
        return Records(self, direction)


class Records:
    """An editor (lab.tampering) for one direction of one connection, whatever sort it is."""

    def __init__(self, strike: Strike, direction: Direction) -> None:
        self._strike = strike
        self._direction = direction
        self._buffer = b""
        self._control: bool | None = None  # told by the first byte, as the hosts do
        self.struck = False

    def feed(self, data: bytes) -> bytes:
        self._buffer += data
        if self._control is None:
            self._control = self._buffer[0] in _TYPES and not self._strike.done
        if not self._control or self._strike.done:
            whole, self._buffer = self._buffer, b""
            return whole
        out = b""
        while not self._strike.done and (record := self._next()) is not None:
            seen = self._strike.seen[self._direction]
            seen.append(len(record))
            if self._direction is self._strike.direction and len(seen) == self._strike.number:
                self._strike.done = True
                self._strike.then()
                if self._strike.how is not None:
                    raise Ended(self._strike.how, out)
            out += record
        if self._strike.done:
            out, self._buffer = out + self._buffer, b""
        return out

    def finish(self) -> bytes:
        return self._buffer

    def _next(self) -> bytes | None:
        if len(self._buffer) < _RECORD.size:
            return None
        size = _RECORD.size + _RECORD.unpack_from(self._buffer)[2]
        if len(self._buffer) < size:
            return None
        record, self._buffer = self._buffer[:size], self._buffer[size:]
        return record
