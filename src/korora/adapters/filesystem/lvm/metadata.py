"""What LVM wrote at the beginning of a physical volume: its label, and the newest description of its group.

Promise: label, header and text are believed only with their checksums. OSError or ValueError otherwise.
Source: LVM's lib/format_text/layout.h and lib/label/label.h describe these structures.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from korora.adapters.filesystem.disk import Bytes
from korora.adapters.filesystem.lvm.grammar import MAX_BYTES

SECTOR: Final = 512
_LABEL: Final = b"LABELONE"
_TYPE: Final = b"LVM2 001"
_LABEL_HEADER: Final = struct.Struct("<8sQII8s")  # name, own sector, checksum, offset of what follows, type
_SUMMED_FROM: Final = 20
_AREA: Final = struct.Struct("<QQ")  # offset, size
_MAX_AREAS: Final = 8
_HEADER: Final = struct.Struct("<I16sIQQ")  # checksum, magic, version, own offset, size
_MAGIC: Final = b" LVM2 x[5A%r0N*>"
_PLACE: Final = struct.Struct("<QQII")  # offset in the area, size, checksum, flags
_IGNORED: Final = 1


@dataclass(frozen=True, slots=True)
class Physical:
    """A physical volume: its id, and its group's description if it holds one; None if it is of no group."""

    id: str
    text: bytes | None


def label_at(part: Bytes) -> int | None:
    """Where its label is: in one of the first four sectors of whatever is a physical volume."""
    head = part.read(0, 4 * SECTOR)
    return next((at for at in range(0, 4 * SECTOR, SECTOR) if head[at : at + 8] == _LABEL), None)


def read(part: Bytes, at: int) -> Physical:
    """`at`: where the label is."""
    sector = part.read(at, SECTOR)
    if len(sector) < SECTOR:
        raise OSError("its label breaks off")
    _, own, checksum, offset, kind = _LABEL_HEADER.unpack_from(sector)
    if kind != _TYPE:
        raise ValueError(f"a physical volume of a kind that is not read: {kind!r}")
    if own * SECTOR != at or _checksum(sector[_SUMMED_FROM:]) != checksum:
        raise ValueError("its label does not have its checksum")
    if not _LABEL_HEADER.size <= offset <= SECTOR - 32 - 8 - 2 * _AREA.size:
        raise ValueError("its label leads nowhere")
    identity = sector[offset : offset + 32].decode("ascii", "backslashreplace")
    _, after = _areas(sector, offset + 32 + 8)  # where data lie, which the description says in extents
    areas, _ = _areas(sector, after)
    texts: list[bytes] = []
    problem = ""
    for start, size in areas:
        try:
            if (text := _text(part, start, size)) is not None:
                texts.append(text)
        except (OSError, ValueError) as error:
            problem = str(error)
    if problem and not texts:
        raise ValueError(problem)
    return Physical(identity, texts[0] if texts else None)


def _areas(sector: bytes, at: int) -> tuple[list[tuple[int, int]], int]:
    """A list of (offset, size), and what follows its end."""
    found: list[tuple[int, int]] = []
    while at + _AREA.size <= SECTOR and len(found) <= _MAX_AREAS:
        area: tuple[int, int] = _AREA.unpack_from(sector, at)
        at += _AREA.size
        if not any(area):
            return found, at
        found.append(area)
    raise ValueError("its label lists too many areas")


def _text(part: Bytes, start: int, size: int) -> bytes | None:
    """The description in this area; None when there is none yet, or it is not to be used."""
    header = part.read(start, SECTOR)
    if len(header) < SECTOR:
        raise OSError("the header of its description breaks off")
    checksum, magic, version, own, length = _HEADER.unpack_from(header)
    if magic != _MAGIC or version != 1 or _checksum(header[4:]) != checksum:
        raise ValueError("the header of its description does not have its checksum")
    offset, count, summed, flags = _PLACE.unpack_from(header, _HEADER.size)
    if not offset or flags & _IGNORED:
        return None
    if own != start or length > size or not SECTOR <= offset < length or not 0 < count <= length - SECTOR:
        raise ValueError("its description does not lie where one may")
    if count > MAX_BYTES:
        raise ValueError(f"its description is longer than {MAX_BYTES >> 20} MiB")
    first = min(count, length - offset)
    text = part.read(start + offset, first) + part.read(start + SECTOR, count - first)
    if len(text) != count or _checksum(text) != summed:
        raise ValueError("its description does not have its checksum")
    return text.rstrip(b"\0")


def _checksum(data: bytes) -> int:
    """CRC-32 as LVM has it: begun elsewhere, and not inverted in the end."""
    return zlib.crc32(data, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
