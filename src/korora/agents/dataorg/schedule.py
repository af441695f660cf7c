"""The order in which a disk's chunks are copied (W6), after Zheng et al., "Workload-aware live storage
migration for clouds" (VEE 2011): what changes often goes last, what is read often is there early.

Each chunk is given one class, by what is known of it:

    early   popular with readers, and hardly written
    calm    all else
    late    likely written while the disk moves: the more often, the later, in LATE tiers

A sample sees few requests, and what is used lies together: so chunks are judged by their neighbourhood, too,
NEAR chunks side by side. One with an unlikely number of reads is early as a whole; where a quarter of one was
seen written, all of it is taken to be written as often as its mean.

The classes are copied one after another, each in one sweep from the disk's beginning to its end; so the head
of a disk that has one turns back at most LATE + 1 times, and without popularity the order is sequential.

Promise: pure; every wanted chunk once, no other one (so none of zeros, if only what holds data is wanted);
the same for the same input. Memory: one byte for each chunk, so 10 MiB for 10 TiB, and what is known of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from korora.agents.dataorg.popularity import Chunks, Popularity

LATE: Final = 4
CHANGES: Final = 0.5
"""So many writes expected during the move make a chunk late; each tier has four times as many as the last."""
NEAR: Final = 16
_UNWANTED, _EARLY, _CALM, _FIRST_LATE = 0, 1, 2, 3
_BLOCK: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Run:
    """`count` chunks that lie one behind the other."""

    first: int
    count: int

    @property
    def end(self) -> int:
        return self.first + self.count


def order(
    chunks: int,
    wanted: Iterable[Run],
    popularity: Popularity | None = None,
    *,
    move_s: float = 0.0,
    limit: int | None = None,
) -> Iterator[Run]:
    """The wanted chunks of a disk that has so many, in runs.

    `move_s`: how long the move is likely to take; `limit`: so many popular chunks are early, at most.
    ValueError when a wanted run is not of this disk.
    """
    classes = np.zeros(chunks, np.uint8)
    for run in wanted:
        if run.first < 0 or run.count < 0 or run.end > chunks:
            raise ValueError(f"{run} is not of a disk of {chunks} chunks")
        classes[run.first : run.end] = _CALM
    if popularity is not None:
        _classify(classes, popularity, move_s, limit)
    for one in range(_EARLY, _FIRST_LATE + LATE):
        yield from _runs(classes, one)


def _classify(classes: NDArray[np.uint8], popularity: Popularity, move_s: float, limit: int | None) -> None:
    numbers, reads, writes = popularity.counts()
    inside = numbers < len(classes)
    known, reads, writes = numbers[inside].astype(np.int64), reads[inside], writes[inside]
    places, place = np.unique(known // NEAR, return_inverse=True)
    read = np.bincount(place, reads, len(places))
    _mark(classes, _chunks_of(places[read > popularity.threshold(NEAR)], len(classes))[:limit], _EARLY)
    _mark(classes, popularity.hot(limit=limit), _EARLY)
    if popularity.observed_s > 0:
        per_move = move_s / popularity.observed_s
        written = places[np.bincount(place, writes > 0, len(places)) >= NEAR / 4]
        mean = (np.bincount(place, writes, len(places)) / NEAR * per_move)[np.isin(places, written)]
        _late(classes, _chunks_of(written, len(classes)), np.repeat(mean, NEAR))
        _late(classes, known, writes * per_move)


def _chunks_of(places: Chunks, chunks: int) -> Chunks:
    spread: Chunks = (places[:, np.newaxis] * NEAR + np.arange(NEAR)).ravel()
    return np.minimum(spread, chunks - 1)


def _late(classes: NDArray[np.uint8], chunks: Chunks, writes: NDArray[np.floating[Any]]) -> None:
    """Never to an earlier tier than the one they are in."""
    often = writes >= CHANGES
    tier = np.minimum(np.log2(writes[often] / CHANGES) // 2, LATE - 1).astype(np.uint8) + np.uint8(
        _FIRST_LATE
    )
    _mark(classes, chunks[often], np.maximum(classes[chunks[often]], tier))


def _mark(classes: NDArray[np.uint8], chunks: Chunks, values: NDArray[np.uint8] | int) -> None:
    """Those of them that are wanted."""
    inside = chunks < len(classes)
    wanted = chunks[inside]
    given = np.broadcast_to(np.asarray(values, np.uint8), chunks.shape)[inside]
    kept = classes[wanted] != _UNWANTED
    classes[wanted[kept]] = given[kept]


def _runs(classes: NDArray[np.uint8], one: int) -> Iterator[Run]:
    """Of one class, in order. Looks at a block at a time, so that what it makes stays small."""
    first = end = 0
    for start in range(0, len(classes), _BLOCK):
        edges = np.flatnonzero(
            np.diff((classes[start : start + _BLOCK] == one).astype(np.int8), prepend=0, append=0)
        )
        for begins, ends in (edges + start).reshape(-1, 2).tolist():
            if begins != end:
                if end > first:
                    yield Run(first, end - first)
                first = begins
            end = ends
    if end > first:
        yield Run(first, end - first)
