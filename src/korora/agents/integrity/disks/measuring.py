"""A disk's content measured chunk by chunk, although some of it cannot be read (E2, E5).

Promise: every chunk has a leaf. One that the storage gives an error for has its placeholder's, and is told;
so a root is over all of the disk, or over placeholders that are named, or there is none.
Limit: past `UNREADABLE_MAX` such chunks the disk is given up: it is failing as a whole.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeVar

from korora.agents.integrity.disks.content import leaves
from korora.errors import KororaError, ToolError
from korora.model.flag import FlagId, FlagKind, Place
from korora.model.identity import Digest
from korora.model.inspection import DiskVerified, Range
from korora.ports.image import OpenImage
from korora.protocol.content_tree import CHUNK_BYTES, ContentTree, chunks_of, leaf
from korora.protocol.flag import name, placeholder

T = TypeVar("T")
UNREADABLE_MAX: Final = 4096
BLOCK_BYTES: Final = 4096
RANGES_MAX: Final = 1000
RECORDS_MAX: Final = 1 << 20
_ONE_BY_ONE: Final = 64
"""What `OpenImage.each` may have under way when one fails: these are read singly."""


@dataclass(frozen=True, slots=True)
class Leaves:
    """`count` chunks in a row that have the same leaf."""

    count: int
    leaf: bytes


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A chunk that gives an error. `content`: what of it could be read, in blocks of 4 KiB, with placeholders
    for the others; None if nothing could."""

    flag: FlagId
    place: Place
    reason: str
    content: bytes | None


@dataclass(slots=True)
class Measured:
    """What came of it. `root` is None until all chunks were told."""

    size: int
    root: Digest | None = None
    unreadable: list[Unreadable] = field(default_factory=list)


def measured(image: OpenImage, vm: str, disk: str, into: Measured) -> Iterator[Leaves]:
    """All chunks in order. ToolError(kind="unreadable") past UNREADABLE_MAX; other errors as they come."""
    tree = ContentTree()
    while tree.count < chunks_of(image.size):
        try:
            for run, found in leaves(image, tree.count):
                _add(tree, Leaves(run.count, found), zero=run.zero)
                yield Leaves(run.count, found)
        except ToolError as error:
            if error.kind != "unreadable":
                raise
            for one in _singly(image, vm, disk, tree.count, into):
                _add(tree, one, zero=False)
                yield one
    into.root = tree.root(image.size)


def _add(tree: ContentTree, one: Leaves, *, zero: bool) -> None:
    if zero:
        tree.add_zeros(one.count)
    else:
        tree.add(one.leaf)


def _singly(image: OpenImage, vm: str, disk: str, first: int, into: Measured) -> Iterator[Leaves]:
    for chunk in range(first, min(first + _ONE_BY_ONE, chunks_of(image.size))):
        begin = chunk * CHUNK_BYTES
        length = min(CHUNK_BYTES, image.size - begin)
        try:
            yield Leaves(1, _read(image, begin, length, leaf))
        except ToolError as error:
            if error.kind != "unreadable" or len(into.unreadable) >= UNREADABLE_MAX:
                raise
            found = _unreadable(image, vm, Place(disk=disk, offset=begin, length=length), error.message)
            into.unreadable.append(found)
            yield Leaves(1, leaf(placeholder(found.flag, length)))


def _unreadable(image: OpenImage, vm: str, place: Place, reason: str) -> Unreadable:
    flag = name(vm, FlagKind.UNREADABLE, place, "")
    begin, length = place.offset or 0, place.length or 0
    blocks, some = [], False
    for at in range(begin, begin + length, BLOCK_BYTES):
        size = min(BLOCK_BYTES, begin + length - at)
        try:
            blocks.append(_read(image, at, size, bytes))
            some = True
        except KororaError:
            blocks.append(placeholder(flag, size))
    return Unreadable(flag, place, reason, b"".join(blocks) if some else None)


def _read(image: OpenImage, offset: int, length: int, work: Callable[[memoryview], T]) -> T:
    return next(iter(image.each([(offset, length)], work)))


# -- kept, to hold a later measurement against -----------------------------------------------------------


class KeptLeaves:
    """Writes leaves down: records of a count (4 bytes, big-endian) and a leaf, compressed by zlib."""

    def __init__(self) -> None:
        self._held: Leaves | None = None
        self._records = 0
        self._compressed = zlib.compressobj(1)
        self._parts: list[bytes] = []

    def add(self, one: Leaves) -> None:
        if self._held is not None and self._held.leaf == one.leaf and self._held.count < 1 << 31:
            one = Leaves(self._held.count + one.count, one.leaf)
        elif self._held is not None:
            self._write(self._held)
        self._held = one

    def done(self) -> bytes | None:
        """All of it; None when it became too many."""
        if self._held is not None:
            self._write(self._held)
        if self._records > RECORDS_MAX:
            return None
        return b"".join([*self._parts, self._compressed.flush()])

    def _write(self, one: Leaves) -> None:
        self._records += 1
        if self._records <= RECORDS_MAX:
            record = one.count.to_bytes(4, "big") + one.leaf
            self._parts.append(self._compressed.compress(record))


def read_leaves(kept: bytes) -> Iterator[Leaves]:
    """What `KeptLeaves` wrote. ValueError for anything else."""
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(kept, 36 * RECORDS_MAX + 1)
    except zlib.error as error:
        raise ValueError(f"it is damaged: {error}") from error
    if not unpacker.eof or len(text) % 36:
        raise ValueError("it is cut short, or too long")
    for at in range(0, len(text), 36):
        count = int.from_bytes(text[at : at + 4], "big")
        if not count:
            raise ValueError("it has a record of no chunk")
        yield Leaves(count, text[at + 4 : at + 36])


def compared(disk: str, before: Iterable[Leaves], now: Iterable[Leaves], size: int) -> DiskVerified:
    """Which chunks are the same. What only one of them has, differs. `size`: in bytes, as it is now."""
    same, differ, ranges = 0, 0, list[Range]()
    for first, count, equal in _paired(iter(before), iter(now)):
        if equal:
            same += count
            continue
        differ += count
        _mark(ranges, first * CHUNK_BYTES, count * CHUNK_BYTES)
    cut = [Range(one.offset, max(0, min(one.length, size - one.offset))) for one in ranges]
    differ_at = tuple(one for one in cut if one.length)
    return DiskVerified(name=disk, chunks_same=same, chunks_differ=differ, differ=differ_at)


def _mark(ranges: list[Range], offset: int, length: int) -> None:
    if ranges and ranges[-1].offset + ranges[-1].length == offset:
        ranges[-1] = Range(ranges[-1].offset, ranges[-1].length + length)
    elif len(ranges) < RANGES_MAX:
        ranges.append(Range(offset, length))


def _paired(before: Iterator[Leaves], now: Iterator[Leaves]) -> Iterator[tuple[int, int, bool]]:
    """(first chunk, how many, whether they are the same)."""
    at, left, right = 0, next(before, None), next(now, None)
    while left is not None or right is not None:
        count = min(one.count for one in (left, right) if one is not None)
        yield at, count, left is not None and right is not None and left.leaf == right.leaf
        at += count
        left, right = _past(left, count, before), _past(right, count, now)


def _past(one: Leaves | None, count: int, more: Iterator[Leaves]) -> Leaves | None:
    if one is None or one.count > count:
        return one and Leaves(one.count - count, one.leaf)
    return next(more, None)
