"""The order in which a disk's chunks are copied (W6), after Zheng et al., "Workload-aware live storage
migration for clouds" (VEE 2011): what changes often goes last, what is read often is there early.

Each chunk is given one class, by what is known of it:

    early   popular with readers, and hardly written     what lies between two of them, if it is short, too
    calm    all else
    late    likely written again while the disk moves: the more often, the later, in LATE tiers

The classes are copied one after another, each in one sweep from the disk's beginning to its end; so the head
of a disk that has one turns back at most LATE + 1 times, and without popularity the order is sequential.

Promise: pure; every wanted chunk once, no other one (so none of zeros, if only what holds data is wanted);
the same for the same input. Memory: one byte for each chunk, so 10 MiB for 10 TiB, and what is known of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from korora.agents.dataorg.popularity import Chunks, Popularity

LATE: Final = 4
CHANGES: Final = 0.5
"""So many writes expected during the move make a chunk late; each tier has four times as many as the last."""
GAP: Final = 4
"""Between two early runs so many chunks go with them: shorter than a seek, and next to what is read."""
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
    known = popularity.frequencies()
    inside = known.chunks < len(classes)
    chunks, writes = known.chunks[inside], known.writes_per_s[inside] * move_s
    changing = writes >= CHANGES
    tier = np.log2(writes[changing] / CHANGES) // 2
    _set(classes, chunks[changing], _FIRST_LATE + np.minimum(tier, LATE - 1).astype(np.uint8))
    hot = np.sort(popularity.hot(limit=limit))
    hot = hot[hot < len(classes)]
    hot = hot[classes[hot] == _CALM]
    classes[hot] = _EARLY
    # All that lies between two early chunks joins them, if it is short, and calm itself.
    for first, last in pairwise(hot):
        if 1 < last - first <= GAP + 1:
            between = classes[first + 1 : last]
            between[between == _CALM] = _EARLY


def _set(classes: NDArray[np.uint8], chunks: Chunks, values: NDArray[np.uint8]) -> None:
    wanted = classes[chunks] != _UNWANTED
    classes[chunks[wanted]] = values[wanted]


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
