"""Where in an image's own file the bytes lie that a guest sees, if all of them lie there as they are.

QEMU, in its sandbox, says where; nothing of the container is interpreted here. So bytes are read without a
server between, at the price of one copy.
Limit: an image in one file, without compression, encryption or a chain; what is said of any other is None,
and QEMU serves it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

import msgspec

from korora.model.image import Extent

Piece: TypeAlias = tuple[int, int | None]
"""(length, where in the file), or (length, None) of zeros that lie nowhere."""
_ZEROS: Final = -1
MAX_BYTES: Final = (1 << 63) - 1
"""Of a file, and so of a disk that QEMU shows."""


class _Mapped(msgspec.Struct):
    """An entry of `qemu-img map --output=json`."""

    start: int
    length: int
    zero: bool
    data: bool
    offset: int | None = None


_DECODER: Final = msgspec.json.Decoder(list[_Mapped])


class Layout:
    """`size` bytes. 24 bytes of memory for each run that lies in one piece."""

    def __init__(self, runs: Iterable[Piece]) -> None:
        """All of the disk, in order."""
        self._starts, self._lengths, self._places = array("q"), array("q"), array("q")
        self.size = 0
        for length, place in runs:
            self._starts.append(self.size)
            self._lengths.append(length)
            self._places.append(_ZEROS if place is None else place)
            self.size += length

    def pieces(self, offset: int, length: int) -> Iterator[Piece]:
        """Of these bytes, which lie within the disk, in order."""
        number = bisect_right(self._starts, offset) - 1
        while length:
            within = offset - self._starts[number]
            count = min(length, self._lengths[number] - within)
            place = self._places[number]
            yield count, None if place == _ZEROS else place + within
            offset, length, number = offset + count, length - count, number + 1

    def in_one_piece(self, offset: int, length: int) -> int | None:
        """Where in the file all of these bytes lie, one after another; None where they do not."""
        number = bisect_right(self._starts, offset) - 1
        within = offset - self._starts[number]
        place = self._places[number]
        return None if place == _ZEROS or within + length > self._lengths[number] else place + within

    def extents(self, offset: int = 0) -> Iterator[Extent]:
        """All from `offset` on, in order and without gaps."""
        number = max(0, bisect_right(self._starts, offset) - 1)
        for at in range(number, len(self._starts)):
            begin, end = max(offset, self._starts[at]), self._starts[at] + self._lengths[at]
            if end > begin:
                yield Extent(begin, end - begin, zero=self._places[at] == _ZEROS)

    def encoded(self) -> bytes:
        """For `decoded`, on this machine: another program of it reads the image."""
        return msgspec.msgpack.encode([self._lengths.tobytes(), self._places.tobytes()])


def decoded(encoded: bytes) -> Layout:
    """What `Layout.encoded` gave."""
    lengths, places = array("q"), array("q")
    for into, part in zip((lengths, places), msgspec.msgpack.decode(encoded, type=list[bytes]), strict=True):
        into.frombytes(part)
    return Layout(
        (length, None if place == _ZEROS else place) for length, place in zip(lengths, places, strict=True)
    )


def laid_out(mapped: bytes, file_bytes: int) -> Layout | None:
    """By what `qemu-img map --output=json` says of an image whose file is so long; None unless every byte of
    the disk is zero or lies in that file.
    """
    try:
        entries = _DECODER.decode(mapped)
    except msgspec.MsgspecError:
        return None
    at = 0
    for one in entries:
        lies = one.zero or (
            one.data and one.offset is not None and 0 <= one.offset <= file_bytes - one.length
        )
        if one.start != at or one.length <= 0 or not lies:
            return None
        at += one.length
    if at > MAX_BYTES:
        return None
    return Layout((one.length, None if one.zero else one.offset) for one in entries)
