"""Made-up traces of what guests ask of their disks, after published workloads. Pure: a seed gives one trace.

A trace is what reaches the disk, in order of time: a chunk of 1 MiB, and whether it is written. Only a part
of the disk is in use; the rest holds data that nobody touches. The parameters:

mail server   filebench's personality varmail (workloads/varmail.f): each loop deletes a file, creates one,
              appends and syncs; reads one, appends and syncs; reads one. Files of 16 KiB and appends of
              16 KiB, drawn evenly. Here 32,000 files instead of 1,000, and 150 loops a second (published runs
              on one SSD: 63 to 640). Each sync writes 12 KiB of a ring of 128 MiB, as ext4's journal is.
file server   filebench's fileserver.f: each loop creates and writes a file of 128 KiB, appends 16 KiB to one,
              reads one, deletes one; 10,000 files, drawn evenly; 50 loops a second; the same journal.
database      filebench's oltp.f (the I/O model of Oracle 9i): reads and writes of 2 KiB, drawn evenly from
              ten data files (here of 100 MiB instead of 10). By its semaphores ten reads to a write, and to
              3,200 reads a write of 256 KiB into a log of 100 MiB, anywhere in it; 1,500 reads a second.
boot          Nguyen, Nou, Lebre, "YOLO: Speeding up VM boot time by reducing I/O operations" (Inria RR-9245,
              2019): what 900 images read when they boot is 40 GB, so 44 MB each. Here in 1,400 reads of
              32 KiB, in 40 places, within 30 s; a tenth as many writes, to a log of 16 MiB. The guest boots
              while it is watched, and once more 10 s after the move began.

Limit: no cache of the guest stands before the disk, and nothing of a workload changes over time but the boot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

CHUNKS: Final = 4096
WATCHED_S: Final = 60.0
ENDS_S: Final = 600.0
JOURNAL_CHUNKS: Final = 128
_FILES_AT, _JOURNAL_AT, _LOG_AT = 400, 2048, 3000
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trace:
    """In order of `at`, seconds since the guest is watched."""

    at: Floats
    chunk: Ints
    written: NDArray[np.bool_]


def mail_server(random: np.random.Generator) -> Trace:
    loops = _times(random, 150)
    files = 32_000
    spots = _FILES_AT + random.integers(0, files, (4, len(loops))) * (24 << 10) // (1 << 20)
    syncs = np.repeat(loops, 2)
    return _merged(
        (loops, spots[0], True),
        (loops, spots[1], False),
        (loops, spots[1], True),
        (loops, spots[2], False),
        (syncs, _journal(len(syncs), 12 << 10), True),
    )


def file_server(random: np.random.Generator) -> Trace:
    loops = _times(random, 50)
    spots = _FILES_AT + random.integers(0, 10_000, (3, len(loops))) // 8
    return _merged(
        (loops, spots[0], True),
        (loops, spots[1], True),
        (loops, spots[2], False),
        (loops, _journal(len(loops), 16 << 10), True),
    )


def database(random: np.random.Generator) -> Trace:
    reads, writes, logs = _times(random, 1500), _times(random, 150), _times(random, 1500 / 3200)
    return _merged(
        (reads, _FILES_AT + random.integers(0, 1000, len(reads)), False),
        (writes, _FILES_AT + random.integers(0, 1000, len(writes)), True),
        (logs, _LOG_AT + random.integers(0, 100, len(logs)), True),
    )


def boot(random: np.random.Generator) -> Trace:
    count = 1400
    places = random.integers(0, CHUNKS - 40, 40)
    chunks = places[random.integers(0, 40, count)] + random.integers(0, 8, count)
    order = np.sort(random.random(count)) * 30
    logs = np.sort(random.random(count // 10)) * 30
    spots = _LOG_AT + np.arange(len(logs)) * 16 // len(logs)
    began = (5.0, WATCHED_S + 10)
    return _merged(
        *((order + begins, chunks, False) for begins in began),
        *((logs + begins, spots, True) for begins in began),
    )


def trace_of(workload: str, seed: int) -> Trace:
    """Each seed lays the data that is used elsewhere on the disk."""
    random = np.random.default_rng(seed)
    made = WORKLOADS[workload](random)
    return Trace(made.at, (made.chunk + random.integers(0, CHUNKS)) % CHUNKS, made.written)


WORKLOADS: Final[Mapping[str, Callable[[np.random.Generator], Trace]]] = {
    "mail server": mail_server,
    "file server": file_server,
    "database": database,
    "boot": boot,
}


def _times(random: np.random.Generator, per_s: float) -> Floats:
    return np.sort(random.random(round(per_s * ENDS_S)) * ENDS_S)


def _journal(count: int, each_bytes: int) -> Ints:
    """A ring that is written on and on."""
    return _JOURNAL_AT + (np.arange(count) * each_bytes // (1 << 20)) % JOURNAL_CHUNKS


def _merged(*parts: tuple[Floats, Ints, bool]) -> Trace:
    at = np.concatenate([part[0] for part in parts])
    order = np.argsort(at, kind="stable")
    written = np.concatenate([np.full(len(part[0]), part[2]) for part in parts])
    return Trace(at[order], np.concatenate([part[1] for part in parts])[order], written[order])
