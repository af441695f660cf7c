"""QEMU's trace of its block layer as requests of each disk. Pure.

A line of the `log` backend, here of QEMU 7.2; `-msg timestamp=on` puts process and time before it:

    blk_co_preadv blk 0x55b2153d68a0 bs 0x55b2149f9e50 offset 1052672 bytes 4096 flags 0x0

`blk` is a pointer, and QEMU tells nobody whose. So each disk is *knocked* at: a read of no bytes at an odd
offset, 2n + 1 for the disk n, which no guest can send: its disks have sectors of 512 bytes.

Promise: a line that is not just like this one, torn or anybody else's, counts for nothing; nor does a request
of somebody who was not knocked at, such as a copy job. What a guest sends can only be a line about itself.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from korora.ports.sampling import Requests

EVENTS: Final = ("blk_co_preadv", "blk_co_pwritev")
PIECE_BYTES: Final = 1 << 16
_LINE: Final = re.compile(
    rb"^(?:[0-9]+@[0-9]+\.[0-9]+:)?blk_co_p(read|write)v blk (0x[0-9a-f]{1,16}) bs [0-9a-fx()nil]{1,18}"
    rb" offset ([0-9]{1,18}) bytes ([0-9]{1,18}) flags 0x[0-9a-f]+$",
    re.MULTILINE,
)
_Row = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Seen:
    reads: Requests
    writes: Requests


def knock(disk: int) -> int:
    """The offset at which the disk of this number is knocked at."""
    return 2 * disk + 1


def requests_of(text: bytes, disks: int) -> dict[int, Seen]:
    """Of each disk that was knocked at, by its number. `text` may begin and end in the middle of a line."""
    reads: Mapping[bytes, list[_Row]] = defaultdict(list)
    writes: Mapping[bytes, list[_Row]] = defaultdict(list)
    knocked: Mapping[int, set[bytes]] = defaultdict(set)
    for piece in _pieces(text):
        for way, blk, offset_text, length_text in _LINE.findall(piece):
            offset, length = int(offset_text), int(length_text)
            if length:
                (reads if way == b"read" else writes)[blk].append((offset, length))
            elif offset % 2 and offset < knock(disks):
                knocked[offset // 2].add(blk)
    owners = [blk for blks in knocked.values() for blk in blks]
    return {
        disk: Seen(_rows(reads[blk]), _rows(writes[blk]))
        for disk, blks in knocked.items()
        if len(blks) == 1
        for blk in blks
        if owners.count(blk) == 1
    }


def _pieces(text: bytes) -> Iterator[bytes]:
    """Whole lines, little at a time: the interpreter is held while one piece is looked at."""
    at, end = 0, text.rfind(b"\n") + 1
    while at < end:
        cut = text.rfind(b"\n", at, at + PIECE_BYTES) + 1 or text.find(b"\n", at) + 1
        yield text[at:cut]
        at = cut


def _rows(rows: list[_Row]) -> Requests:
    return np.array(rows, np.int64).reshape(-1, 2)
