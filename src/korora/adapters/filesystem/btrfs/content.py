"""The content of a btrfs file: its extents, in order, each sector against its checksum.

Promise: what is given is what its checksums say, from whichever copy; where one has none that should, or no
copy fits, OSError. A file that was made without checksums (nodatacow) is given as it is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from korora.adapters.filesystem.btrfs.superblock import Root
from korora.adapters.filesystem.btrfs.trees import LAST, Key, Trees
from korora.adapters.filesystem.btrfs.unpacking import MAX_BYTES, unpacked
from korora.adapters.filesystem.disk import Bytes

EXTENT_DATA: Final = 108
_CHECKSUM_TREE: Final = 7
_CHECKSUMS: Final = LAST - 9  # -10, as their tree's keys have it
_EXTENT_CHECKSUM: Final = 128
_HEAD: Final = struct.Struct("<QQBBHB")
_REGULAR: Final = struct.Struct("<QQQQ")
_INLINE, _ON_DISK, _RESERVED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class _Extent:
    """`begin` to `end` of the file. `address`: 0 where there are only zeros. `held`: its bytes, if known."""

    begin: int
    end: int
    address: int = 0
    stored: int = 0
    offset: int = 0
    compression: int = 0
    unpacked: int = 0
    held: bytes | None = None


class Data:
    """What lies at logical addresses, checked."""

    def __init__(self, part: Bytes, trees: Trees) -> None:
        self._part = part
        self._trees = trees
        self._checksums: Root | None = None

    def read(self, address: int, length: int, *, checked: bool) -> bytes:
        """Whole sectors."""
        places = self._trees.addresses.places(address, length)
        wanted = self._stated(address, length) if checked else []
        for place in places:
            data = self._part.read(place, length)
            if len(data) == length and (not checked or self._sums(data) == wanted):
                return data
        if len(self._part.read(places[0], length)) < length:
            raise OSError(f"the disk ends before the data at {address:#x}")
        raise OSError(f"the checksum of the data at {address:#x} is wrong")

    def _sums(self, data: bytes) -> list[bytes]:
        about = self._trees.about
        return [about.checksum.of(data[at : at + about.sector]) for at in range(0, len(data), about.sector)]

    def _stated(self, address: int, length: int) -> list[bytes]:
        """The checksum of each sector. OSError where one has none."""
        about = self._trees.about
        size, sector = about.checksum.size, about.sector
        if self._checksums is None:
            self._checksums = self._trees.tree(_CHECKSUM_TREE)[0]
        most = about.node // size * sector  # what one item can speak of
        first: Key = (_CHECKSUMS, _EXTENT_CHECKSUM, max(0, address - most))
        last: Key = (_CHECKSUMS, _EXTENT_CHECKSUM, address + length - 1)
        found: list[bytes] = []
        for (_, _, begin), item in self._trees.items(self._checksums, first, last):
            while len(found) * sector < length:
                at = (address + len(found) * sector - begin) // sector * size
                if at + size > len(item):
                    break
                found.append(item[at : at + size])
        if len(found) * sector != length:
            raise OSError(f"the data at {address:#x} has no checksum")
        return found


class FileContent:
    """To be read from the beginning to the end; reading elsewhere begins again."""

    def __init__(self, trees: Trees, data: Data, root: Root, inode: int, *, checked: bool) -> None:
        self._trees, self._data = trees, data
        self._root, self._inode, self._checked = root, inode, checked
        self._begin()

    def _begin(self) -> None:
        self._extents = self._all()
        self._at = _Extent(0, 0)

    def read(self, offset: int, length: int) -> bytes:
        if offset < self._at.begin:
            self._begin()
        parts = []
        while length > 0:
            while offset >= self._at.end:
                self._at = next(self._extents)
            piece = self._piece(offset, min(length, self._at.end - offset))
            parts.append(piece)
            offset, length = offset + len(piece), length - len(piece)
        return b"".join(parts)

    def runs(self) -> Iterator[tuple[int, int]]:
        """Where it lies on the device, in all its copies: (offset, length)."""
        for extent in self._all():
            if extent.address:
                packed = extent.stored if extent.compression else extent.end - extent.begin
                begin = extent.address + (0 if extent.compression else extent.offset)
                for place in self._trees.addresses.places(begin, packed):
                    yield place, packed

    def holes(self) -> Iterator[tuple[int, int]]:
        """Where it has zeros that lie nowhere; the last has no end: (offset, length)."""
        for extent in self._all():
            if extent.held is None and not extent.address:
                yield extent.begin, extent.end - extent.begin

    def _piece(self, offset: int, length: int) -> bytes:
        extent = self._at
        if extent.held is None and extent.compression and extent.address:
            extent = self._at = self._unpacked(extent)
        within = offset - extent.begin
        if extent.held is not None:
            return extent.held[within : within + length]
        if not extent.address:
            return bytes(length)
        sector = self._trees.about.sector
        start = extent.offset + within
        before = start % sector
        whole = -(-(before + length) // sector) * sector
        data = self._data.read(extent.address + start - before, whole, checked=self._checked)
        return data[before : before + length]

    def _unpacked(self, extent: _Extent) -> _Extent:
        if extent.stored > MAX_BYTES:
            raise OSError("a compressed extent is too large")
        packed = self._data.read(extent.address, extent.stored, checked=self._checked)
        whole = unpacked(packed, extent.compression, extent.unpacked, self._trees.about.sector)
        held = whole[extent.offset : extent.offset + extent.end - extent.begin]
        if len(held) != extent.end - extent.begin:
            raise OSError("an extent is larger than what is stored of it")
        return _Extent(extent.begin, extent.end, held=held)

    def _all(self) -> Iterator[_Extent]:
        """Extents without gaps, the last of which has no end. Each is given once the next was seen: of two
        that overlap, Linux would read the later one.
        """
        first, last = (self._inode, EXTENT_DATA, 0), (self._inode, EXTENT_DATA, LAST)
        before = _Extent(0, 0)
        for (_, _, begin), item in self._trees.items(self._root, first, last):
            extent = self._extent(begin, item)
            if extent.begin < before.end or extent.end <= extent.begin:
                raise OSError("its extents overlap")
            yield before
            if extent.begin > before.end:
                yield _Extent(before.end, extent.begin)
            before = extent
        yield before
        yield _Extent(before.end, LAST)

    def _extent(self, begin: int, item: bytes) -> _Extent:
        if len(item) < _HEAD.size:
            raise OSError("an extent breaks off")
        _, size, compression, encryption, other, kind = _HEAD.unpack_from(item)
        if encryption or other:
            raise OSError("an extent is encoded in a way that is not known")
        sector = self._trees.about.sector
        if kind == _INLINE:
            data = item[_HEAD.size :]
            held = unpacked(data, compression, size, sector) if compression else data
            # The rest of its sector is zeros: what is appended to a file begins another extent there.
            held = held.ljust(-(-max(1, len(held)) // sector) * sector, b"\x00")
            return _Extent(begin, begin + len(held), held=held)
        if kind not in {_ON_DISK, _RESERVED} or len(item) < _HEAD.size + _REGULAR.size:
            raise OSError("an extent of a kind that is not known")
        address, stored, offset, length = _REGULAR.unpack_from(item, _HEAD.size)
        if offset % sector or length % sector or address % sector or stored % sector:
            raise OSError("an extent is not made of sectors")
        if not compression and address and offset + length > stored:
            raise OSError("an extent is larger than what is stored of it")
        if kind == _RESERVED:
            return _Extent(begin, begin + length)
        return _Extent(begin, begin + length, address, stored, offset, compression, size)
