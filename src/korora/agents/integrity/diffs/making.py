"""A diff made of what a disk was and what it is: both hashed once, what changed read once more.

Promise: what is told of as changed is all of it, and is what was hashed: a disk that is written meanwhile is
an error. Where the base itself is at hand a changed chunk has only its changed blocks, else all of it.
Memory does not grow with the disk: some 200 MiB at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np

from korora.agents.integrity.disks.content import Progress, Told, leaves
from korora.agents.integrity.disks.measuring import Leaves
from korora.errors import IntegrityError, RefusedError
from korora.ports.image import OpenImage
from korora.protocol.content_tree import CHUNK_BYTES, ContentTree, chunks_of, leaf, zeros
from korora.protocol.disk_diff.chunks import BLOCK_BYTES, BLOCKS, Data, Zeros, blocks_of, length_of, packed
from korora.protocol.disk_diff.records import Writing
from korora.protocol.disk_diff.statement import Content

_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True)
class Base:
    """What the disk was: `leaves` of all its chunks, and itself if it is at hand."""

    size: int
    leaves: Iterable[Leaves]
    image: OpenImage | None = None


@dataclass(frozen=True, slots=True)
class Made:
    base: Content
    result: Content
    writing: Writing


@dataclass(frozen=True, slots=True)
class _Change:
    """`count` chunks in a row have another leaf; `before`: the first one's, if the base has such a chunk."""

    first: int
    count: int
    now: bytes
    before: bytes | None


def base_of(image: OpenImage) -> Base:
    return Base(image.size, leaves_of(image), image)


def leaves_of(image: OpenImage) -> Iterator[Leaves]:
    return (Leaves(run.count, found) for run, found in leaves(image))


def made(base: Base, image: OpenImage, out: Callable[[bytes], object], told: Told) -> Made:
    """Writes records and trailer to `out`; the head is the caller's, who signs it.

    RefusedError(kind="image-changed") when one is written meanwhile; IntegrityError(kind="bad-leaves").
    """
    before, now, writing = ContentTree(), ContentTree(), Writing()
    was = counted(base.leaves, before, base.size)
    seen = _progressing(counted(leaves_of(image), now, image.size), now, image.size, told)
    changes = _joined(_changes(was, seen), image.size)
    while some := list(islice(changes, _AT_ONCE)):
        for record in _records(some, base, image):
            out(writing.add(record))
    if before.count != chunks_of(base.size):
        raise _bad_leaves(f"they are {before.count} chunks, and the disk has {chunks_of(base.size)}")
    out(writing.end())
    return Made(
        Content(base.size, before.root(base.size)), Content(image.size, now.root(image.size)), writing
    )


def counted(some: Iterable[Leaves], tree: ContentTree, size: int) -> Iterator[Leaves]:
    for one in some:
        if tree.count + one.count > chunks_of(size):
            raise _bad_leaves("they are more than the disk has chunks")
        if one.leaf == zeros(0):
            tree.add_zeros(one.count)
        else:
            for _ in range(one.count):
                tree.add(one.leaf)
        yield one


def _progressing(some: Iterator[Leaves], tree: ContentTree, size: int, told: Told) -> Iterator[Leaves]:
    for one in some:
        told(Progress(min(tree.count * CHUNK_BYTES, size), size, tree.count, tree.peaks))
        yield one


def _changes(before: Iterator[Leaves], now: Iterator[Leaves]) -> Iterator[_Change]:
    """In order. `before` is read to its end, too."""
    at, left, right = 0, next(before, None), next(now, None)
    while left is not None or right is not None:
        count = min(one.count for one in (left, right) if one is not None)
        if right is not None and (left is None or left.leaf != right.leaf):
            yield _Change(at, count, right.leaf, left.leaf if left else None)
        at += count
        left, right = _past(left, count, before), _past(right, count, now)


def _past(one: Leaves | None, count: int, more: Iterator[Leaves]) -> Leaves | None:
    if one is None or one.count > count:
        return one and Leaves(one.count - count, one.leaf)
    return next(more, None)


def _joined(changes: Iterator[_Change], size: int) -> Iterator[_Change]:
    """Runs of zeros as one, everything else chunk by chunk."""
    held: _Change | None = None
    last = zeros(0) if size % CHUNK_BYTES == 0 else leaf(bytes(size % CHUNK_BYTES))
    for one in changes:
        is_zero = one.now == zeros(0) or (one.first + one.count == chunks_of(size) and one.now == last)
        if is_zero and held is not None and held.first + held.count == one.first:
            held = _Change(held.first, held.count + one.count, zeros(0), None)
            continue
        if held is not None:
            yield held
        held = _Change(one.first, one.count, zeros(0), None) if is_zero else None
        if not is_zero:
            yield from (_Change(one.first + more, 1, one.now, one.before) for more in range(one.count))
    if held is not None:
        yield held


# -- records -----------------------------------------------------------------------------------------------


def _records(some: list[_Change], base: Base, image: OpenImage) -> Iterator[Data | Zeros]:
    written = [one for one in some if one.now != zeros(0)]
    partly = [one for one in written if base.image is not None and _fits(one, base.size, image.size)]
    parts = {one.first for one in partly}
    new = image.each([_range(one, image.size) for one in written], _whole if base.image is None else _read)
    old = base.image.each([_range(one, base.size) for one in partly], _read) if base.image else iter(())
    for one in some:
        if one.now == zeros(0):
            yield Zeros(one.first, one.count)
            continue
        found, content = next(new)
        _check(found, one.now)
        blocks, length = blocks_of(length_of(one.first, image.size)), length_of(one.first, image.size)
        if one.first in parts:
            found, was = next(old)
            _check(found, one.before)
            blocks = differing(was, content)
        frame = content if base.image is None else packed(content, blocks, length)
        yield Data(one.first, one.now, blocks, frame)


def differing(old: bytes, new: bytes) -> int:
    """The blocks (bits) in which two chunks of one length differ."""
    whole = len(new) // BLOCK_BYTES
    rows = [
        np.frombuffer(one, np.uint64, whole * BLOCK_BYTES // 8).reshape(whole, BLOCK_BYTES // 8)
        for one in (old, new)
    ]
    mask = np.zeros(BLOCKS, bool)
    mask[:whole] = (rows[0] != rows[1]).any(axis=1)
    if whole < BLOCKS:
        mask[whole] = old[whole * BLOCK_BYTES :] != new[whole * BLOCK_BYTES :]
    return int.from_bytes(np.packbits(mask).tobytes(), "big")


def _fits(one: _Change, base: int, result: int) -> bool:
    return one.before is not None and length_of(one.first, base) == length_of(one.first, result)


def _range(one: _Change, size: int) -> tuple[int, int]:
    return one.first * CHUNK_BYTES, length_of(one.first, size)


def _whole(content: memoryview) -> tuple[bytes, bytes]:
    """Hashed and packed in the reader's own threads."""
    return leaf(content), packed(content, blocks_of(len(content)), len(content))


def _read(content: memoryview) -> tuple[bytes, bytes]:
    return leaf(content), bytes(content)


def _check(found: bytes, expected: bytes | None) -> None:
    if found != expected:
        raise RefusedError(
            "a disk was written while a diff was made of it: the diff would be of no moment",
            kind="image-changed",
            remedy="stop the VM, or take a snapshot and read that",
        )


def _bad_leaves(problem: str) -> IntegrityError:
    return IntegrityError(
        f"these leaves are not those of the base: {problem}",
        kind="bad-leaves",
        remedy="say the base's size (--base-size), or make the diff of the base itself",
    )
