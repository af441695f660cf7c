"""How often each part of a disk is read and written, learnt from samples; which parts are popular (A5).

A disk is cut into chunks of 1 MiB, those of its content tree. Of each chunk that was seen two counts are
kept, reads and writes, which halve every `half_life_s`; so does the time over which they were counted. A
frequency is the one divided by the other: it forgets, and a gap in the sampling makes no disk look cold.

Promise: pure; every time is given in seconds of one clock that goes on (a time before the last one changes
nothing but the counts). Memory: 12 bytes for each chunk that was seen, at most KEPT_MAX of them, so 6 MiB
for a disk of any size; adding a sample takes a few times that for a moment. Limit: chunks beyond KEPT_MAX
are forgotten, the least used first; of a disk of more than 4 PiB the rest is not looked at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from korora.ports.sampling import Requests
from korora.protocol.content_tree import CHUNK_BYTES, chunks_of

Chunks: TypeAlias = NDArray[np.int64]
"""Numbers of chunks, the first of a disk is 0."""

KEPT_MAX: Final = 1 << 19
HALF_LIFE_S: Final = 600.0
FORGOTTEN: Final = 1 / 64
"""A chunk with fewer reads and writes left than this is known no more."""
LONGEST: Final = 64
"""Of a request for more chunks than this the rest is not counted: no device of a guest asks for so much."""
_END: Final = CHUNK_BYTES << 32
_STRAY: Final = 2.0
_SIGMAS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Frequencies:
    """Of the chunks that are known, in order: reads and writes a second."""

    chunks: Chunks
    reads_per_s: NDArray[np.float64]
    writes_per_s: NDArray[np.float64]


def unlikely(mean: float) -> float:
    """A count that chance would hardly give where `mean` is to be expected.

    If reads fell evenly on all chunks, counts were Poisson's: what is popular has twice the mean and lies two
    standard deviations above it; and one or two stray reads make nothing on a large disk popular.
    """
    return max(_STRAY, 2 * mean, mean + _SIGMAS * math.sqrt(mean))


class Popularity:
    """The counts of one disk of `size` bytes."""

    def __init__(self, size: int, *, half_life_s: float = HALF_LIFE_S) -> None:
        """ValueError for a size below 0, or a half-life that is none."""
        if size < 0 or not 0 < half_life_s < float("inf"):
            raise ValueError(f"a disk of {size} bytes, or a half-life of {half_life_s} s, is none")
        self.size = size
        self.half_life_s = half_life_s
        self.at = 0.0
        self.observed_s = 0.0
        self._chunks: NDArray[np.uint32] = np.empty(0, np.uint32)
        self._reads: NDArray[np.float32] = np.empty(0, np.float32)
        self._writes: NDArray[np.float32] = np.empty(0, np.float32)

    def __len__(self) -> int:
        """How many chunks are known."""
        return len(self._chunks)

    @property
    def bytes_held(self) -> int:
        return self._chunks.nbytes + self._reads.nbytes + self._writes.nbytes

    def add(self, at: float, seconds: float, reads: Requests, writes: Requests) -> None:
        """What was asked of the disk during so many seconds until `at`. What lies outside it is left out."""
        self.decay(at)
        self.observed_s += max(seconds, 0.0)
        read, read_times = self._touched(reads)
        written, write_times = self._touched(writes)
        known = np.union1d(np.union1d(read, written), self._chunks)
        new_reads = self._spread(known, self._reads)
        new_writes = self._spread(known, self._writes)
        new_reads[np.searchsorted(known, read)] += read_times
        new_writes[np.searchsorted(known, written)] += write_times
        self._keep(known, new_reads, new_writes)

    def decay(self, at: float) -> None:
        """What was counted so far as it weighs at this time."""
        passed = at - self.at
        if passed > 0:
            share = 0.5 ** (passed / self.half_life_s)
            self.observed_s *= share
            self._keep(self._chunks, self._reads * np.float32(share), self._writes * np.float32(share))
            self.at = at

    def frequencies(self) -> Frequencies:
        per_s = 1 / self.observed_s if self.observed_s > 0 else 0.0
        return Frequencies(
            self._chunks.astype(np.int64),
            self._reads.astype(np.float64) * per_s,
            self._writes.astype(np.float64) * per_s,
        )

    def threshold(self, together: int = 1) -> float:
        """The count of reads above which a chunk is popular, or `together` chunks side by side."""
        return unlikely(together * self._reads.sum(dtype=np.float64) / max(chunks_of(self.size), 1))

    def hot(self, *, reads_per_s: float | None = None, limit: int | None = None) -> Chunks:
        """The popular chunks, the most read first: those read more often than `reads_per_s`, or, where it is
        not given, than `threshold` says; at most `limit`, such as fit on the replacement device."""
        least = self.threshold() if reads_per_s is None else reads_per_s * self.observed_s
        popular = np.flatnonzero((self._reads > least) & (self._reads > 0))
        order = np.argsort(-self._reads[popular], kind="stable")
        return self._chunks[popular[order]][:limit].astype(np.int64)

    def resized(self, size: int) -> Popularity:
        """The same of the disk at another size: what is known beyond its end is forgotten."""
        kept = self._chunks < chunks_of(size)
        counts = (self._chunks[kept], self._reads[kept], self._writes[kept])
        return self.restored(size, self.half_life_s, self.at, self.observed_s, counts)

    def counts(self) -> tuple[NDArray[np.uint32], NDArray[np.float32], NDArray[np.float32]]:
        """Chunks in order, and what is left of their reads and writes: all of the state, with `at` and
        `observed_s`."""
        return self._chunks, self._reads, self._writes

    @classmethod
    def restored(
        cls,
        size: int,
        half_life_s: float,
        at: float,
        observed_s: float,
        counts: tuple[NDArray[np.uint32], NDArray[np.float32], NDArray[np.float32]],
    ) -> Popularity:
        """From `counts`. ValueError when no disk could have these."""
        made = cls(size, half_life_s=half_life_s)
        chunks, reads, writes = counts
        if not (np.isfinite(at) and np.isfinite(observed_s) and observed_s >= 0):
            raise ValueError("a time is no time")
        if not len(chunks) == len(reads) == len(writes) <= KEPT_MAX:
            raise ValueError(f"{len(chunks)} chunks, {len(reads)} and {len(writes)} counts")
        wide = chunks.astype(np.int64)
        if np.any(np.diff(wide) <= 0) or (len(wide) and wide[-1] >= chunks_of(size)):
            raise ValueError("the chunks are out of order, or not of this disk")
        for count in (reads, writes):
            if not np.all(np.isfinite(count)) or np.any(count < 0):
                raise ValueError("a count is no count")
        made.at, made.observed_s = at, observed_s
        made._chunks, made._reads, made._writes = chunks.copy(), reads.copy(), writes.copy()
        return made

    def _touched(self, requests: Requests) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """The chunks that requests fall into, each once, and how many fall into it."""
        offset, length = requests[:, 0], requests[:, 1]
        end = min(self.size, _END)
        inside = (offset >= 0) & (length > 0) & (offset < end)
        offset, length = offset[inside], np.minimum(length[inside], end - offset[inside])
        first = offset // CHUNK_BYTES
        spans = np.minimum((offset + length - 1) // CHUNK_BYTES - first + 1, LONGEST)
        step = np.arange(int(spans.sum())) - np.repeat(np.cumsum(spans) - spans, spans)
        chunks, times = np.unique(np.repeat(first, spans) + step, return_counts=True)
        return chunks.astype(np.uint32), times.astype(np.float32)

    def _spread(self, known: NDArray[np.uint32], counts: NDArray[np.float32]) -> NDArray[np.float32]:
        wider = np.zeros(len(known), np.float32)
        wider[np.searchsorted(known, self._chunks)] = counts
        return wider

    def _keep(
        self, chunks: NDArray[np.uint32], reads: NDArray[np.float32], writes: NDArray[np.float32]
    ) -> None:
        weight = np.maximum(reads, writes)
        kept = np.flatnonzero(weight >= FORGOTTEN)
        if len(kept) > KEPT_MAX:
            used = np.argsort(-weight[kept], kind="stable")[:KEPT_MAX]
            kept = np.sort(kept[used])
        self._chunks, self._reads, self._writes = chunks[kept], reads[kept], writes[kept]
