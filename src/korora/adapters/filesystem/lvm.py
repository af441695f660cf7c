"""Logical volumes of one disk, by libvslvm.

Limit: one that reaches to another disk is a problem. The library does not tell where a volume lies: it is
asked for a byte of each extent, and what it would read for that is noted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import pyvslvm

from korora.adapters.filesystem.disk import AsFile, Bytes, words_of
from korora.model.files import Problem

MAX_EXTENTS: Final = 1 << 22
_LABEL: Final = b"LABELONE"
_SECTOR: Final = 512
_DESCRIBED_BYTES: Final = 1 << 20
_READ_AT_ONCE: Final = 1 << 16  # what the library reads for a byte, and keeps
_EXTENT: Final = re.compile(rb"\bextent_size = ([0-9]{1,10})\b")


def is_one(part: Bytes) -> bool:
    """Whether it is a physical volume: that has its label in one of the first four sectors."""
    head = part.read(0, 4 * _SECTOR)
    return any(head[at : at + 8] == _LABEL for at in range(0, 4 * _SECTOR, _SECTOR))


def volumes(part: Bytes, start: int, most: int) -> Iterator[Logical | Problem]:
    """`start`: where the part begins on the disk."""
    try:
        opened = _Opened(part)
        for number in range(min(most, opened.group.number_of_logical_volumes)):
            yield Logical(part, start, number, opened)
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        yield Problem(f"LVM at byte {start}", words_of(error))


class _Watched(AsFile):
    """Once it is `blind`, it reads nothing, and notes where it was to read."""

    def __init__(self, of: Bytes) -> None:
        super().__init__(of)
        self.blind = False
        self.asked: int | None = None

    def read(self, size: int = -1) -> bytes:
        if not self.blind or size < 0:
            return super().read(size)
        self.asked = self.get_offset()
        self.seek(size, 1)
        return bytes(size)


class _Opened:
    """A volume group, and what the library needs for as long as it is used."""

    def __init__(self, part: Bytes) -> None:
        self._file, self.content = AsFile(part), _Watched(part)
        self._handle = pyvslvm.handle()
        self._handle.open_file_object(self._file)
        self._handle.open_physical_volume_files_as_file_objects([self.content])
        self.group = self._handle.get_volume_group()


class Logical:
    """A logical volume's bytes."""

    def __init__(self, part: Bytes, start: int, number: int, opened: _Opened) -> None:
        self._part, self._start, self._number = part, start, number
        self._opened = opened
        self._volume = opened.group.get_logical_volume(number)
        self.size = int(self._volume.size)

    def read(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        return bytes(self._volume.read_buffer_at_offset(length, offset)) if length else b""

    def lies(self) -> list[tuple[int, int, int]]:
        """(offset in it, offset on the disk, length), neighbours as one. OSError where nobody can say."""
        extent = self._extent_bytes()
        opened = _Opened(self._part)
        volume, content = opened.group.get_logical_volume(self._number), opened.content
        content.blind = True
        found: list[tuple[int, int, int]] = []
        for offset in range(0, self.size, extent):
            content.asked = None
            volume.read_buffer_at_offset(1, offset)
            if content.asked is None:
                raise OSError(f"the library does not tell where byte {offset} of it lies")
            place, length = self._start + content.asked, min(extent, self.size - offset)
            if found and found[-1][1] + found[-1][2] == place:
                found[-1] = (found[-1][0], found[-1][1], found[-1][2] + length)
            else:
                found.append((offset, place, length))
        return found

    def _extent_bytes(self) -> int:
        said = _EXTENT.search(self._part.read(0, _DESCRIBED_BYTES))
        size = int(said[1]) * _SECTOR if said else 0
        if size < _READ_AT_ONCE or self.size // size > MAX_EXTENTS:
            raise OSError("its extents are too small or too many to say where it lies")
        return size
