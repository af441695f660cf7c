"""How parts of a disk are named: chunks of 1 MiB, and units of 4 KiB inside of them, by `content_tree.leaf`.

Promise: two parts with one name are the same bytes, of the same length. What is zero has no name here.
Pure. Why two grains, and why these: docs/adr/0016.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Final

from korora.protocol import content_tree
from korora.protocol.content_tree import CHUNK_BYTES

NAME_BYTES: Final = 32
UNIT_BYTES: Final = 4096
UNITS_OF_A_CHUNK: Final = CHUNK_BYTES // UNIT_BYTES


class Grain(IntEnum):
    """How long parts are, in bytes; a disk's last one may be shorter."""

    CHUNK = CHUNK_BYTES
    UNIT = UNIT_BYTES


_ZERO_CHUNK: Final = bytes(CHUNK_BYTES)
_ZERO_UNIT: Final = bytes(UNIT_BYTES)
ZEROS: Final = frozenset({content_tree.zeros(0), content_tree.leaf(_ZERO_UNIT)})
"""The names of zeros, which nobody stores or asks for."""


def name_of(part: bytes | bytearray | memoryview) -> bytes:
    """Its leaf."""
    return content_tree.leaf(part)


def is_zero(part: bytes | bytearray | memoryview) -> bool:
    """Whether it is no more than zeros; of at most a chunk."""
    zeros = _ZERO_UNIT if len(part) == UNIT_BYTES else _ZERO_CHUNK[: len(part)]
    return bytes(part) == zeros  # not `part ==`: views are compared byte by byte, a hundred times slower


def units(chunk: bytes | bytearray | memoryview) -> Iterator[tuple[int, bytes | None]]:
    """Each unit's offset in the chunk, and its name; None where it is zero."""
    view = memoryview(chunk)
    for at in range(0, len(view), UNIT_BYTES):
        unit = view[at : at + UNIT_BYTES]
        yield at, None if is_zero(unit) else name_of(unit)


def split(names: bytes) -> list[bytes]:
    """Names that stand one after the other."""
    return [names[at : at + NAME_BYTES] for at in range(0, len(names), NAME_BYTES)]
