"""A btrfs superblock, and where logical addresses lie on its one device.

Promise: what is told was checked: its checksum, its magic, its bounds. A file system of several devices, or
with a feature that changes how it is to be read, is refused with OSError.

Source: the btrfs on-disk format, btrfs.readthedocs.io, "On-disk Format".
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Final

from korora.adapters.filesystem.btrfs.checksums import CHECKSUMS, Checksum
from korora.adapters.filesystem.disk import Bytes

MAX_CHUNKS: Final = 1 << 20
CHUNK_ITEM: Final = 228
_AT: Final = 0x10000
_BYTES: Final = 4096
_MAGIC: Final = b"_BHRfS_M"
_ARRAY_AT, _ARRAY_BYTES = 811, 2048
_READABLE: Final = 0xFFF | 0x10000  # features up to RAID1C34, and simple quotas: they leave reading as it was
_METADATA_UUID: Final = 0x400
_KEY: Final = struct.Struct("<QBQ")
_CHUNK: Final = struct.Struct("<QQQQIIIHH")
_STRIPE: Final = struct.Struct("<QQ16s")
_STRIPED: Final = 0x8 | 0x40  # RAID0, RAID10: as good as whole with one stripe
_PARITY: Final = 0x80 | 0x100


@dataclass(frozen=True, slots=True)
class Root:
    """Where a tree begins, and what its first block must say."""

    address: int
    level: int
    generation: int


@dataclass(frozen=True, slots=True)
class Superblock:
    checksum: Checksum
    sector: int
    node: int
    device: int
    uuid: bytes  # that tree blocks carry
    roots: Root
    chunks: Root
    has_log: bool
    system_chunks: bytes


def superblock_of(part: Bytes) -> Superblock:
    """OSError where it is none that can be read."""
    raw = part.read(_AT, _BYTES)
    if len(raw) != _BYTES or raw[64:72] != _MAGIC:
        raise OSError("it has no btrfs superblock")
    kind, root_level, chunk_level = struct.unpack_from("<HBB", raw, 196)
    if (checksum := CHECKSUMS.get(kind)) is None:
        raise OSError(f"a kind of checksum that is not known: {kind}")
    if raw[: checksum.size] != checksum.of(raw[32:]):
        raise OSError("the checksum of the superblock is wrong")
    generation, roots, chunks, log = struct.unpack_from("<QQQQ", raw, 72)
    devices, sector, node = struct.unpack_from("<QII", raw, 136)
    array, chunk_generation = struct.unpack_from("<IQ", raw, 160)
    features = int.from_bytes(raw[188:196], "little")
    _refuse(devices, features, sector, node, array)
    at = 571 if features & _METADATA_UUID else 32
    return Superblock(
        checksum=checksum,
        sector=sector,
        node=node,
        device=int.from_bytes(raw[201:209], "little"),
        uuid=raw[at : at + 16],
        roots=Root(roots, root_level, generation),
        chunks=Root(chunks, chunk_level, chunk_generation),
        has_log=log != 0,
        system_chunks=raw[_ARRAY_AT : _ARRAY_AT + array],
    )


def _refuse(devices: int, features: int, sector: int, node: int, array: int) -> None:
    if devices != 1:
        raise OSError(f"it lies on {devices} devices, which are not put together")
    if features & ~_READABLE:
        raise OSError(f"it has features that are not known: {features & ~_READABLE:#x}")
    powers = {1 << power for power in range(12, 17)}
    if sector not in powers or node not in powers or node < sector or array > _ARRAY_BYTES:
        raise OSError("its superblock has impossible sizes")


@dataclass(slots=True)
class Addresses:
    """Logical → physical. Each address has one place or, with copies, several."""

    device: int
    _starts: list[int] = field(default_factory=list)
    _chunks: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)

    def places(self, logical: int, length: int) -> tuple[int, ...]:
        """OSError where no chunk has all of it."""
        at = bisect_right(self._starts, logical) - 1
        if at >= 0:
            within, (size, places) = logical - self._starts[at], self._chunks[at]
            if within + length <= size and places:
                return tuple(place + within for place in places)
        raise OSError(f"the address {logical:#x} leads nowhere")

    def add_system(self, array: bytes) -> None:
        """The chunks in a superblock, by which all others are found."""
        at = 0
        while at < len(array):
            if len(array) - at < _KEY.size + _CHUNK.size:
                raise OSError("the chunks in its superblock break off")
            _, kind, logical = _KEY.unpack_from(array, at)
            stripes = _CHUNK.unpack_from(array, at + _KEY.size)[7]
            end = at + _KEY.size + _CHUNK.size + stripes * _STRIPE.size
            if kind != CHUNK_ITEM:
                raise OSError("the chunks in its superblock are none")
            self.add(logical, array[at + _KEY.size : end])
            at = end

    def add(self, logical: int, item: bytes) -> None:
        """One that is there already is left as it is. OSError for one that cannot be read."""
        if len(item) < _CHUNK.size:
            raise OSError("a chunk breaks off")
        length, _, _, kind, *_, stripes, _ = _CHUNK.unpack_from(item)
        if len(item) < _CHUNK.size + stripes * _STRIPE.size or not stripes:
            raise OSError("a chunk breaks off")
        if kind & _PARITY or (kind & _STRIPED and stripes > 1):
            raise OSError("a chunk is spread over several devices")
        found = [_STRIPE.unpack_from(item, _CHUNK.size + number * _STRIPE.size) for number in range(stripes)]
        places = tuple(place for device, place, _ in found if device == self.device)
        at = bisect_right(self._starts, logical)
        if at and self._starts[at - 1] + self._chunks[at - 1][0] > logical:
            return
        if len(self._starts) >= MAX_CHUNKS:
            raise OSError(f"it has more than {MAX_CHUNKS} chunks")
        self._starts.insert(at, logical)
        self._chunks.insert(at, (length, places))
