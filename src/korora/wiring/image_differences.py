"""The files that lie where two disk images differ (E2).

Limit: where a folder of XFS lies, or the content of what is in no block of its own, nobody tells: such a
change is one of the file system's metadata.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import numpy as np

from korora.adapters.filesystem.sandboxed import SandboxedFiles
from korora.adapters.image.qemu_nbd import QemuImages
from korora.agents.integrity.disks.content import Difference
from korora.agents.integrity.disks.locating import (
    FileThere,
    Inhabited,
    Locating,
    Side,
    Stretches,
    TooMuchError,
    differing_sectors,
)
from korora.agents.integrity.files.digest import shown
from korora.agents.integrity.files.tapping import name_of
from korora.errors import KororaError
from korora.model.files import Located, Problem, Volume
from korora.ports.filesystem import FileLocator
from korora.ports.image import OpenImage, Range
from korora.protocol.content_tree import CHUNK_BYTES
from korora.wiring.images import Image

__all__ = ["FileThere", "Inhabited", "Where", "located", "name_of", "shown"]

CLOSELY_MAX: Final = 2048
"""Chunks that are looked at by sectors; the others count as a whole."""
CHUNKS_MAX: Final = 16 << 20
"""Chunks that are looked at at all."""
PROBLEMS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Where:
    """By a range's number: what lies in it. `problems`: why there may be more, of either disk."""

    ranges: Mapping[int, Inhabited]
    problems: tuple[Problem, ...]


def located(one: Image, other: Image, found: Sequence[Difference]) -> Where:
    """What lies in these ranges, in which the two differ. What is not told is a problem, never left out."""
    if not found:
        return Where({}, ())
    problems: list[Problem] = []
    locating = Locating(list(_stretches(one, other, found, problems)))
    reader: FileLocator = SandboxedFiles()
    for side, image in ((Side.ONE, one), (Side.OTHER, other)):
        problems += _taken(locating, side, image, reader)
    return Where(locating.ended(), tuple(problems[:PROBLEMS_MAX]))


def _taken(locating: Locating, side: Side, image: Image, reader: FileLocator) -> Iterator[Problem]:
    told = reader.locate(image.disks[0].files)
    try:
        for one in told:
            if isinstance(one, Located | Volume):
                locating.take(side, one)
            elif isinstance(one, Problem):
                yield Problem(f"{image.path.name}: {one.where}"[:4096], one.problem)
    except TooMuchError:
        yield Problem(image.path.name, "its file systems tell of more places than are looked at")
    except KororaError as error:  # that they differ is known all the same
        yield Problem(image.path.name, error.message[:4096])
    finally:
        told.close()


def _stretches(
    one: Image, other: Image, found: Sequence[Difference], problems: list[Problem]
) -> Iterator[Stretches]:
    chunks = [
        (number, offset, min(CHUNK_BYTES, difference.offset + difference.length - offset))
        for number, difference, offset in _chunks(found, CLOSELY_MAX)
    ]
    with ExitStack() as opened:
        reader = QemuImages(connections=2)
        both = [opened.enter_context(reader.open(image.disks[0].files)) for image in (one, other)]
        read = [_read(image, chunks) for image in both]
        for (number, offset, _), left, right in zip(chunks, *read, strict=True):
            yield differing_sectors(number, offset, left, right)
    yield from _whole(found, chunks, problems)


def _chunks(found: Sequence[Difference], most: int) -> Iterator[tuple[int, Difference, int]]:
    for number, difference in enumerate(found):
        for offset in range(difference.offset, difference.offset + difference.length, CHUNK_BYTES):
            if most <= 0:
                return
            most -= 1
            yield number, difference, offset


def _read(image: OpenImage, chunks: Sequence[tuple[int, int, int]]) -> Iterator[bytes]:
    """Of each chunk, what the image has of it."""
    ranges: list[Range] = [
        (offset, min(length, image.size - offset)) for _, offset, length in chunks if offset < image.size
    ]
    yield from image.each(ranges, bytes)
    yield from (b"" for _ in chunks[len(ranges) :])


def _whole(
    found: Sequence[Difference], closely: Sequence[tuple[int, int, int]], problems: list[Problem]
) -> Iterator[Stretches]:
    """What comes after those that were looked at closely."""
    done = closely[-1][1] + closely[-1][2] if closely else 0
    left = CHUNKS_MAX
    for number, difference in enumerate(found):
        begin, end = max(done, difference.offset), difference.offset + difference.length
        if begin >= end:
            continue
        length = min(end - begin, left * CHUNK_BYTES)
        if length:
            yield Stretches(number, np.array([(begin, length)], np.int64), CHUNK_BYTES)
        if length < end - begin:
            where = f"from byte {begin + length} on"
            problems.append(Problem(where, "too much differs to say what lies there"))
            return
        left -= -(-length // CHUNK_BYTES)
