"""A disk's popularity as a picture of so many cells, whatever the disk's size. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from korora.agents.dataorg.popularity import Chunks, Popularity
from korora.model.heat import HOT_RUNS_MAX, DiskHeat
from korora.protocol.content_tree import CHUNK_BYTES, chunks_of


def picture(name: str, popularity: Popularity, cells: int) -> DiskHeat:
    """In at most `cells` cells of equal length."""
    chunks = chunks_of(popularity.size)
    cell_chunks = max(1, -(-chunks // cells))
    shown = -(-chunks // cell_chunks)
    known = popularity.frequencies()
    cell = known.chunks // cell_chunks
    hot = np.sort(popularity.hot())
    reads = float(known.reads_per_s.sum())
    hot_reads = float(known.reads_per_s[np.isin(known.chunks, hot)].sum())
    return DiskHeat(
        name=name,
        size=popularity.size,
        chunk_bytes=CHUNK_BYTES,
        seen_s=popularity.observed_s,
        reads_per_s=reads,
        writes_per_s=float(known.writes_per_s.sum()),
        known_chunks=len(popularity),
        held_bytes=popularity.bytes_held,
        hot_chunks=len(hot),
        hot_share=min(hot_reads / reads, 1.0) if reads else 0.0,
        hot=tuple(_runs(hot))[:HOT_RUNS_MAX],
        cell_chunks=cell_chunks,
        cell_reads_per_s=_summed(cell, known.reads_per_s, shown),
        cell_writes_per_s=_summed(cell, known.writes_per_s, shown),
    )


def _summed(cell: Chunks, rates: NDArray[np.float64], cells: int) -> tuple[float, ...]:
    return tuple(np.bincount(cell, rates, cells).round(6).tolist())


def _runs(chunks: Chunks) -> Iterable[tuple[int, int]]:
    for run in np.split(chunks, np.flatnonzero(np.diff(chunks) != 1) + 1):
        if len(run):
            yield int(run[0]), len(run)
