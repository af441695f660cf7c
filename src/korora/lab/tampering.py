"""What a man in the middle does to one direction of one connection: pure, bytes in, bytes out.

A fault strikes once, at a byte offset or at a frame of Korora's data plane (whose headers travel in clear,
so that an attacker could do the same). Limit: a frame fault needs a data connection; on anything else it
passes everything on unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

from korora.protocol.frames import HEADER, HEADER_BYTES, OVERHEAD_BYTES, PREAMBLE_BYTES, PREAMBLE_MAGIC, Kind


class Action(StrEnum):
    FLIP = "flip"  # one bit, in the middle
    DROP = "drop"
    REPEAT = "repeat"
    SWAP = "swap"  # with what follows, as much again
    TRUNCATE = "truncate"  # an orderly end of this direction
    CUT = "cut"  # reset the connection
    STALL = "stall"  # forward nothing more, and keep it open


class Direction(StrEnum):
    FORWARD = "forward"  # from who connected
    RETURN = "return"


class Sort(StrEnum):
    """What a connection is, by its first byte."""

    CONTROL = "control"  # TLS
    DATA = "data"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Fault:
    """One attack. Give `offset` (a byte, with `length`) or `frame`: a number from 0, "last" or "end".

    `last` is the last DATA, told by the END after it, or by the ALIVE of a sender that has no more to send
    and waits for its peer's answer, as QEMU does before it closes. `end` is the END itself.

    `connection` counts connections of that sort from 0, since the forwarder began; None takes the first that
    gets that far.
    """

    action: Action
    offset: int | None = None
    frame: int | Literal["last", "end"] | None = None
    direction: Direction = Direction.FORWARD
    sort: Sort = Sort.DATA
    connection: int | None = None
    length: int = 1

    def __post_init__(self) -> None:
        if (self.offset is None) == (self.frame is None):
            raise ValueError("a fault strikes at an offset or at a frame: give one of them")

    def strikes(self, sort: Sort, connection: int, direction: Direction) -> bool:
        return (
            self.direction is direction
            and self.sort in (sort, Sort.ANY)
            and self.connection in (None, connection)
        )


class Ended(Exception):  # noqa: N818 (signals to the pump, not failures)
    """Stop here, in the way of `action`; `rest` is to be forwarded first."""

    def __init__(self, action: Action, rest: bytes) -> None:
        super().__init__(action)
        self.action = action
        self.rest = rest


class Editor(Protocol):
    """One direction of one connection. `struck` turns true when something was changed."""

    struck: bool

    def feed(self, data: bytes) -> bytes:
        """What to forward now. Raises Ended when this direction is over."""
        ...

    def finish(self) -> bytes:
        """What was held back, when the sender has ended."""
        ...


class Unchanged:
    struck = False

    def feed(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bytes:
        return b""


class ByteEditor:
    """A fault at a byte offset of the stream."""

    def __init__(self, fault: Fault) -> None:
        if fault.offset is None:
            raise ValueError("a byte fault has an offset")
        self._fault = fault
        self._before = fault.offset  # bytes still to pass
        self._needed = {Action.SWAP: 2}.get(fault.action, 1) * fault.length
        self._held = b""
        self.struck = False

    def feed(self, data: bytes) -> bytes:
        if self.struck:
            return data
        passed, data = data[: self._before], data[self._before :]
        self._before -= len(passed)
        if self._before or not data:
            return passed
        self._held += data
        if len(self._held) < self._needed:
            return passed
        self.struck = True
        piece, rest = self._held[: self._needed], self._held[self._needed :]
        self._held = b""
        return passed + strike(self._fault.action, piece, before=passed) + rest

    def finish(self) -> bytes:
        held, self._held = self._held, b""
        return held


class FrameEditor:
    """A fault at a frame of the data plane. `last` holds each DATA frame until the next frame is seen."""

    def __init__(self, fault: Fault) -> None:
        if fault.frame is None:
            raise ValueError("a frame fault has a frame")
        self._fault = fault
        self._buffer = b""
        self._held: bytes | None = None
        self._begun = False
        self.struck = False

    def feed(self, data: bytes) -> bytes:
        if self.struck and self._held is None:
            rest, self._buffer = self._buffer + data, b""
            return rest
        self._buffer += data
        self._begun = self._begun or len(self._buffer) >= len(PREAMBLE_MAGIC)
        out = self._preamble()
        while self._begun and (frame := self._next_frame()) is not None:
            try:
                out += self._frame(frame)
            except Ended as ended:
                raise Ended(ended.action, out + ended.rest) from None
        return out

    def finish(self) -> bytes:
        rest, self._held, self._buffer = (self._held or b"") + self._buffer, None, b""
        return rest

    def _preamble(self) -> bytes:
        if not self._buffer.startswith(PREAMBLE_MAGIC):
            return b""
        if len(self._buffer) < PREAMBLE_BYTES:
            self._begun = False
            return b""
        passed, self._buffer = self._buffer[:PREAMBLE_BYTES], self._buffer[PREAMBLE_BYTES:]
        return passed

    def _next_frame(self) -> bytes | None:
        if len(self._buffer) < HEADER_BYTES:
            return None
        _, payload, _ = HEADER.unpack_from(self._buffer)
        size = OVERHEAD_BYTES + payload
        if len(self._buffer) < size:
            return None
        frame, self._buffer = self._buffer[:size], self._buffer[size:]
        return frame

    def _frame(self, frame: bytes) -> bytes:
        kind, _, sequence = HEADER.unpack_from(frame)
        if self.struck and self._held is None:
            return frame
        if self._held is not None:
            return self._second(frame, kind)
        if self._fault.frame == "last":
            return self._hold(frame) if kind == Kind.DATA else frame
        if sequence != self._fault.frame and not (self._fault.frame == "end" and kind == Kind.END):
            return frame
        if self._fault.action is Action.SWAP:
            return self._hold(frame)
        self.struck = True
        return strike(self._fault.action, frame)

    def _hold(self, frame: bytes) -> bytes:
        self._held = frame
        return b""

    def _second(self, frame: bytes, kind: int) -> bytes:
        """The frame after the one that is held: now it is known whether that was the one."""
        held, self._held = self._held or b"", None
        if self._fault.frame == "last" and kind == Kind.DATA:
            return held + self._frame(frame)
        self.struck = True
        if self._fault.action is Action.SWAP:
            return frame + held
        return strike(self._fault.action, held) + frame


class Replacement:
    """Replace each occurrence of a byte string by another of the same length, across any chunking."""

    def __init__(self, wanted: bytes, instead: bytes) -> None:
        if len(wanted) != len(instead) or not wanted:
            raise ValueError("what replaces must be as long as what is replaced")
        self._wanted = wanted
        self._instead = instead
        self._held = b""
        self.count = 0
        self.struck = False

    def feed(self, data: bytes) -> bytes:
        data = self._held + data
        found = data.count(self._wanted)
        if found:
            data = data.replace(self._wanted, self._instead)
            self.count += found
            self.struck = True
        keep = self._half_seen(data)
        self._held = data[len(data) - keep :]
        return data[: len(data) - keep]

    def finish(self) -> bytes:
        held, self._held = self._held, b""
        return held

    def _half_seen(self, data: bytes) -> int:
        """How many bytes at the end may be the beginning of an occurrence."""
        longest = min(len(self._wanted) - 1, len(data))
        return next((n for n in range(longest, 0, -1) if data.endswith(self._wanted[:n])), 0)


def strike(action: Action, piece: bytes, before: bytes = b"") -> bytes:
    """The piece after the attack. Raises Ended for those that end the stream (with `before` to forward)."""
    match action:
        case Action.FLIP:
            middle = len(piece) // 2
            return piece[:middle] + bytes([piece[middle] ^ 1]) + piece[middle + 1 :]
        case Action.DROP:
            return b""
        case Action.REPEAT:
            return piece + piece
        case Action.SWAP:
            half = len(piece) // 2
            return piece[half:] + piece[:half]
        case Action.TRUNCATE:
            # Half of it still arrives, as when a cable is pulled.
            raise Ended(action, before + piece[: len(piece) // 2])
        case Action.CUT | Action.STALL:
            raise Ended(action, before)


def editor_of(fault: Fault) -> Editor:
    return ByteEditor(fault) if fault.offset is not None else FrameEditor(fault)
