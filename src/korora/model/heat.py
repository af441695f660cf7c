"""How popular the parts of a VM's disks are, as it is told and shown (A5)."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

CELLS: Final = 256
CELLS_MAX: Final = 8192
HOT_RUNS_MAX: Final = 10_000
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Rate = Annotated[float, msgspec.Meta(ge=0)]


class DiskHeat(msgspec.Struct, frozen=True, kw_only=True):
    """One disk. Cells are parts of `cell_chunks` chunks, the last may be shorter; rates are of a whole cell.

    `hot` are the popular chunks as runs (first, count), in order, at most HOT_RUNS_MAX of them; `hot_share`:
    of all reads, those that fall into popular chunks. `seen_s`: so long it was watched, halved with every
    half-life that has passed since.
    """

    name: str
    size: Count
    chunk_bytes: Count
    seen_s: Rate
    reads_per_s: Rate
    writes_per_s: Rate
    known_chunks: Count
    held_bytes: Count
    hot_chunks: Count
    hot_share: Rate
    hot: tuple[tuple[Count, Count], ...]
    cell_chunks: Count
    cell_reads_per_s: tuple[Rate, ...]
    cell_writes_per_s: tuple[Rate, ...]


class VmHeat(msgspec.Struct, frozen=True, kw_only=True):
    """Every `every_s` it is watched for `sample_s`; 0: never. `why`: why it is not watched now, if so."""

    vm: str
    at: float
    every_s: Rate
    sample_s: Rate
    why: str = ""
    disks: tuple[DiskHeat, ...] = ()
