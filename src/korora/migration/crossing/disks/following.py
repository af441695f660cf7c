"""What is written on one side's disk, brought to the other side's: read here, written there, flushed.

Promise: once nobody writes any more, a last `send` of what was written since the one before leaves both the
same where it was ever sent. Memory: some 25 MiB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import tee
from typing import Final

from korora.ports.image import OpenImage, Range
from korora.ports.moving_disks import DiskThere

PIECE_BYTES: Final = 256 << 10
_ZEROS: Final = bytes(PIECE_BYTES)


def merged(ranges: Iterable[Range]) -> list[Range]:
    """The same bytes, in order, none of them twice."""
    told: list[Range] = []
    for offset, length in sorted(ranges):
        if told and offset <= (end := sum(told[-1])):
            told[-1] = told[-1][0], max(end, offset + length) - told[-1][0]
        else:
            told.append((offset, length))
    return told


def send(image: OpenImage, ranges: Iterable[Range], there: DiskThere) -> int:
    """How many bytes these were; zeros among them take no room on the way. Blocking; ToolError."""
    done = 0
    asked, told = tee(_pieces(ranges, image.size))
    for (offset, length), data in zip(told, image.each(asked, _content), strict=True):
        if data is None:
            there.zero(offset, length)
        else:
            there.put(offset, data)
        done += length
    if done:
        there.flush()
    return done


def _content(data: memoryview) -> bytes | None:
    """None for zeros."""
    content = bytes(data)
    return None if content == _ZEROS[: len(content)] else content


def _pieces(ranges: Iterable[Range], size: int) -> Iterator[Range]:
    """Cut at multiples of their length, so that what is read is of few lengths."""
    for offset, length in ranges:
        at, end = offset, min(offset + length, size)
        while at < end:
            count = min(PIECE_BYTES - at % PIECE_BYTES, end - at)
            yield at, count
            at += count
