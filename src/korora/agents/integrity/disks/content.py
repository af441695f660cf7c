"""The digest of a disk's content, and where two disks differ: zeros are skipped, the rest is read once.

Promise: a digest is of every byte that a guest sees, or there is none. It can be put aside at any chunk and
taken up again. Memory does not grow with the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from korora.model.identity import Digest
from korora.model.image import Extent
from korora.ports.image import OpenImage, Range
from korora.protocol.content_tree import CHUNK_BYTES, ContentTree, Peak, chunks_of, leaf, zeros

Told = Callable[["Progress"], None]
_RUNS_AT_ONCE: Final = 4096
_MERGED_BYTES: Final = 1 << 40
"""No more as one, so that progress is told, and a digest put aside, within a run of zeros."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far: `done` of `size` bytes; `tree` can be taken up again there."""

    done: int
    size: int
    count: int
    peaks: tuple[Peak, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """Chunks from `first` on: of zeros, or to be read."""

    first: int
    count: int
    zero: bool


def runs(extents: Iterable[Extent], size: int, first: int = 0) -> Iterator[Run]:
    """The chunks of a disk: of zeros where nothing else is in them. `extents` begin at chunk `first`."""
    merged = _merged(extents)
    at, last = first, chunks_of(size)
    pending: Extent | None = next(merged, None)
    while at < last:
        begin = at * CHUNK_BYTES
        while pending is not None and pending.end <= begin:
            pending = next(merged, None)
        whole = 0
        if pending is not None and pending.zero and pending.offset <= begin:
            # The last, shorter chunk is read: it costs nothing, and has a leaf of its own.
            whole = min(pending.end, size) // CHUNK_BYTES - at
        if whole > 0:
            yield Run(at, whole, zero=True)
            at += whole
        else:
            yield Run(at, 1, zero=False)
            at += 1


def _merged(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Neighbours of one kind as one, up to a bound."""
    held: Extent | None = None
    for extent in extents:
        more = held is not None and held.length < _MERGED_BYTES
        if held is not None and more and held.zero is extent.zero and held.end == extent.offset:
            held = Extent(held.offset, held.length + extent.length, held.zero)
        else:
            if held is not None:
                yield held
            held = extent
    if held is not None:
        yield held


def leaves(image: OpenImage, first: int = 0) -> Iterator[tuple[Run, bytes]]:
    """Each run with its leaf, in order; of a run of zeros, the leaf of one of its chunks."""
    for run, found in read_runs(image, leaf, first):
        yield run, zeros(0) if found is None else found


def read_runs(
    image: OpenImage, work: Callable[[memoryview], bytes], first: int = 0
) -> Iterator[tuple[Run, bytes | None]]:
    """Each run with what `work` makes of its bytes, in order; None for a run of zeros."""
    plan = runs(image.extents(first * CHUNK_BYTES), image.size, first)
    while some := list(islice(plan, _RUNS_AT_ONCE)):
        read = image.each([_range(run, image.size) for run in some if not run.zero], work)
        for run in some:
            yield run, None if run.zero else next(read)


def _range(run: Run, size: int) -> Range:
    begin = run.first * CHUNK_BYTES
    return begin, min(CHUNK_BYTES, size - begin)


def digest(image: OpenImage, told: Told, tree: ContentTree | None = None) -> Digest:
    """The root; from where `tree` was put aside, or from the beginning. Tells of progress after each run."""
    tree = tree or ContentTree()
    for run, found in leaves(image, tree.count):
        if run.zero:
            tree.add_zeros(run.count)
        else:
            tree.add(found)
        told(Progress(min(tree.count * CHUNK_BYTES, image.size), image.size, tree.count, tree.peaks))
    return tree.root(image.size)


@dataclass(frozen=True, slots=True)
class Difference:
    """Bytes from `offset` on in which two disks differ: whole chunks, but for a last one."""

    offset: int
    length: int


def differences(one: OpenImage, other: OpenImage, told: Told) -> Iterator[Difference]:
    """Where they differ, neighbours as one. What only one of them has, differs."""
    held: Difference | None = None
    for begin, count, same in _compared(leaves(one), leaves(other)):
        end = min((begin + count) * CHUNK_BYTES, max(one.size, other.size))
        told(Progress(end, max(one.size, other.size), begin + count, ()))
        if same:
            continue
        offset = begin * CHUNK_BYTES
        if held is not None and held.offset + held.length == offset:
            held = Difference(held.offset, end - held.offset)
            continue
        if held is not None:
            yield held
        held = Difference(offset, end - offset)
    if held is not None:
        yield held


def _compared(
    one: Iterator[tuple[Run, bytes]], other: Iterator[tuple[Run, bytes]]
) -> Iterator[tuple[int, int, bool]]:
    """(first chunk, how many, whether they are the same), in order."""
    left, right = next(one, None), next(other, None)
    at = 0
    while left is not None or right is not None:
        ends = [run.first + run.count for run, _ in (pair for pair in (left, right) if pair is not None)]
        end = min(ends)
        same = left is not None and right is not None and left[1] == right[1]
        yield at, end - at, same
        at = end
        left = _past(left, at, one)
        right = _past(right, at, other)


def _past(
    now: tuple[Run, bytes] | None, at: int, more: Iterator[tuple[Run, bytes]]
) -> tuple[Run, bytes] | None:
    return next(more, None) if now is not None and now[0].first + now[0].count <= at else now
