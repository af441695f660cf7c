"""What two hosts say to each other of a disk's parts before they are sent.

    source       coming   these names are next
    destination  held     I have these, verified, and hold them for you (a bit for each name)
    source       put      put them there, and what you were given for this place also there
    destination  settled  done, but for these places: send them

One msgpack Struct a message, strictly parsed. Promise: a message that is not in the one spelling, or has a
count that no disk of that size has, is PeerError; nothing here grows beyond the bounds below.
Pure. Specified with vectors in docs/protocol/deduplication.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Final, TypeAlias

import msgspec

from korora.errors import PeerError
from korora.protocol.dedup.names import NAME_BYTES, ZEROS, Grain, split

MAX_NAMES: Final = 16_384
"""In one batch: 64 chunks by their units, or 16 GiB by chunks."""
MAX_PLACES: Final = 65_536
"""That one `put` fills: a name may stand in several places."""
MAX_BATCHES: Final = 8
"""That are not settled yet; the destination holds bytes for each."""
MAX_MESSAGE_BYTES: Final = 2 << 20
_MAX_PLACE: Final = (1 << 52) - 1

Batch: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
Place: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=_MAX_PLACE)]
"""Which part of the disk, counted from 0 in the batch's grain."""
Bits: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_NAMES // 8)]
"""One for each name, the first in the highest bit of the first byte; what is over in the last is 0."""
_Names: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=NAME_BYTES, max_length=MAX_NAMES * NAME_BYTES)]
_Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=MAX_NAMES)]


class _Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="t"):
    """The base of every message; the tag names it on the wire."""


class Coming(_Said, frozen=True, tag="coming"):
    """Source: the names of parts that come next, each once, one after the other; of zeros none."""

    batch: Batch
    grain: Grain
    names: _Names

    @property
    def count(self) -> int:
        return len(self.names) // NAME_BYTES


class Held(_Said, frozen=True, tag="held"):
    """Destination: which of these it read, verified, and holds until the batch is settled."""

    batch: Batch
    bits: Bits


class Put(_Said, frozen=True, tag="put"):
    """Source: `copies` are (number of a held name, place), `repeats` (number of a name, the earlier place
    that was given it, place). Copies are made first, then repeats in their order."""

    batch: Batch
    copies: Annotated[tuple[tuple[_Number, Place], ...], msgspec.Meta(max_length=MAX_PLACES)]
    repeats: Annotated[tuple[tuple[_Number, Place, Place], ...], msgspec.Meta(max_length=MAX_PLACES)]

    @property
    def filled(self) -> list[int]:
        """The places that get something."""
        return [place for _, place in self.copies] + [place for _, _, place in self.repeats]


class Settled(_Said, frozen=True, tag="settled"):
    """Destination: nothing is held for this batch any more; it lacks these places of its `put`, ascending."""

    batch: Batch
    lacking: Annotated[tuple[Place, ...], msgspec.Meta(max_length=MAX_PLACES)]


AnySaid: TypeAlias = Coming | Held | Put | Settled
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[AnySaid]] = msgspec.msgpack.Decoder(AnySaid)


def encode(message: AnySaid) -> bytes:
    return _ENCODER.encode(message)


def decode(data: bytes) -> AnySaid:
    """One whole message that makes sense by itself, or PeerError(kind="malformed-message")."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise _malformed(f"{len(data)} bytes are more than the protocol allows")
    try:
        message = _DECODER.decode(data)
        if _ENCODER.encode(message) != data:
            raise msgspec.DecodeError("it is not in its one spelling")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(str(error)) from error
    match message:
        case Coming():
            _check_names(message.names)
        case Put():
            _check_put(message)
        case Settled():
            if any(one >= other for one, other in zip(message.lacking, message.lacking[1:], strict=False)):
                raise _malformed("places are not in order")
        case Held():
            pass  # only beside its question: `answer_to`
    return message


def bits_of(held: Iterable[bool]) -> bytes:
    """As a `held` carries them."""
    bits = [*held]
    bits += [False] * (-len(bits) % 8)
    whole = int("".join("01"[bit] for bit in bits) or "0", 2)
    return whole.to_bytes(len(bits) // 8, "big")


def answer_to(coming: Coming, held: Held) -> list[bool]:
    """For each name, whether the destination holds it. PeerError for an answer to anything else."""
    if held.batch != coming.batch or len(held.bits) != -(-coming.count // 8):
        raise _malformed(f"batch {held.batch} is no answer to batch {coming.batch}")
    padded = f"{int.from_bytes(held.bits, 'big'):0{len(held.bits) * 8}b}"
    if "1" in padded[coming.count :]:
        raise _malformed("more is held than was named")
    return [bit == "1" for bit in padded[: coming.count]]


def check_put(put: Put, coming: Coming, held: Sequence[bool], places: int) -> None:
    """PeerError unless it asks for what is held, and for places of the disk, which has so many."""
    if put.batch != coming.batch:
        raise _malformed(f"batch {put.batch} is put where batch {coming.batch} was due")
    if any(number >= len(held) or not held[number] for number, _ in put.copies):
        raise _malformed("what is not held cannot be put anywhere")
    if any(number >= len(held) for number, _, _ in put.repeats):
        raise _malformed("what was not named cannot be repeated")
    if any(place >= places for place in put.filled):
        raise _malformed("a place lies beyond the disk")


def check_settled(settled: Settled, put: Put) -> None:
    """PeerError unless it lacks only what it was to put."""
    if settled.batch != put.batch:
        raise _malformed(f"batch {settled.batch} is settled where batch {put.batch} was due")
    if not set(settled.lacking) <= set(put.filled):
        raise _malformed("places are lacking that nobody was to fill")


def _check_names(names: bytes) -> None:
    if len(names) % NAME_BYTES:
        raise _malformed("a name is cut short")
    each = split(names)
    if len(set(each)) != len(each):
        raise _malformed("a name stands there twice")
    if not ZEROS.isdisjoint(each):
        raise _malformed("zeros are not asked for")


def _check_put(put: Put) -> None:
    filled = put.filled
    if len(filled) > MAX_PLACES or len(set(filled)) != len(filled):
        raise _malformed("too many places are filled, or one twice")
    if any(of >= place for _, of, place in put.repeats):
        raise _malformed("a place repeats what comes later")


def _malformed(why: str) -> PeerError:
    return PeerError(
        f"the other host sent a message about a disk's parts that is not in the protocol: {why}",
        kind="malformed-message",
        remedy="both hosts must run the same version of Korora",
    )
