"""The disk, as readers of partitions and file systems want it: an export of NBD, or a file in which its bytes
lie; with a little memory.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import pytsk3

from korora.adapters.filesystem.complaints import plain
from korora.adapters.image import nbd
from korora.adapters.image.files import read_into
from korora.adapters.image.layout import Layout, decoded

BLOCK_BYTES: Final = 1 << 16
BLOCKS_KEPT: Final = 512


class Bytes(Protocol):
    @property
    def size(self) -> int: ...
    def read(self, offset: int, length: int) -> bytes:
        """Shorter only at the end. OSError where it cannot be read."""
        ...


Fetch = Callable[[int, int], bytes]
"""(offset, length) → the bytes there, all of them. OSError."""


def exported(socket: str, export: str = "") -> Disk:
    """What is served there."""
    handle = nbd.library().NBD()
    handle.set_export_name(export)
    handle.connect_unix(socket)
    flags, error = nbd.in_one_piece(handle), nbd.library().Error

    def fetch(offset: int, length: int) -> bytes:
        parts = []
        try:
            while length:  # it may be a snapshot
                most = nbd.SNAPSHOT_BYTES - offset % nbd.SNAPSHOT_BYTES
                piece = bytes(handle.pread(min(length, most), offset, flags=flags))
                parts.append(piece)
                offset, length = offset + len(piece), length - len(piece)
        except error as failed:
            raise _unreadable(offset, length, failed) from failed
        return b"".join(parts)

    return Disk(fetch, handle.get_size())


def in_file(file: str, layout: str) -> Disk:
    """What lies in that file, by an encoded layout. It is open for as long as the process lives."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    where: Layout = decoded(Path(layout).read_bytes())

    def fetch(offset: int, length: int) -> bytes:
        try:
            place = where.in_one_piece(offset, length)
            if place is not None and len(found := os.pread(descriptor, length, place)) == length:
                return found
            space, done = bytearray(length), 0
            for count, place in where.pieces(offset, length):
                read_into(memoryview(space)[done : done + count], descriptor, place)
                done += count
        except OSError as failed:
            raise _unreadable(offset, length, failed) from failed
        return bytes(space)

    return Disk(fetch, where.size)


def _unreadable(offset: int, length: int, failed: Exception) -> OSError:
    return OSError(f"bytes {offset} to {offset + length} of the disk cannot be read: {failed}")


class Disk:
    """Small reads, which are metadata, come in whole blocks that are kept for a while."""

    def __init__(self, fetch: Fetch, size: int) -> None:
        self._fetched = fetch
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        if length >= BLOCK_BYTES:
            return self._fetched(offset, length)
        parts = []
        while length:
            number, within = divmod(offset, BLOCK_BYTES)
            piece = self._block(number)[within : within + length]
            parts.append(piece)
            offset, length = offset + len(piece), length - len(piece)
        return b"".join(parts)

    def _block(self, number: int) -> bytes:
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        begin = number * BLOCK_BYTES
        block = self._kept[number] = self._fetched(begin, min(BLOCK_BYTES, self.size - begin))
        if len(self._kept) > BLOCKS_KEPT:
            self._kept.popitem(last=False)
        return block


class Part:
    """A piece of something, as something of its own."""

    def __init__(self, of: Bytes, start: int, length: int) -> None:
        self._of = of
        self._start = start
        self.size = max(0, min(length, of.size - start))

    def read(self, offset: int, length: int) -> bytes:
        return self._of.read(self._start + offset, max(0, min(length, self.size - offset)))


class ForSleuthKit(pytsk3.Img_Info):  # type: ignore[misc]  # it has no types
    """Bytes, as The Sleuth Kit wants them."""

    def __init__(self, of: Bytes) -> None:
        self._of = of
        super().__init__(url="")

    def read(self, offset: int, length: int) -> bytes:
        return self._of.read(offset, length)

    def get_size(self) -> int:
        return self._of.size

    def close(self) -> None:
        """Nothing of its own is open."""


class AsFile:
    """Bytes, as the libyal libraries want them: a file object."""

    def __init__(self, of: Bytes) -> None:
        self._of = of
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        data = self._of.read(self._at, self._of.size if size < 0 else size)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = (0, self._at, self._of.size)[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def get_offset(self) -> int:
        return self._at

    def get_size(self) -> int:
        return self._of.size


def words_of(error: BaseException) -> str:
    """Why something could not be read, in bounds, and in no library's own words."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return plain(str(error) or type(error).__name__)
