"""The disk, as readers of partitions and file systems want it: an export of NBD, with a little memory."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Protocol

import pytsk3

from korora.adapters.image import nbd

BLOCK_BYTES: Final = 1 << 16
BLOCKS_KEPT: Final = 512
_AT_MOST: Final = 1 << 25  # what an NBD server takes in one request


class Bytes(Protocol):
    @property
    def size(self) -> int: ...
    def read(self, offset: int, length: int) -> bytes:
        """Shorter only at the end. OSError where it cannot be read."""
        ...


class Disk:
    """An NBD export. Small reads, which are metadata, come in whole blocks that are kept for a while."""

    def __init__(self, socket: str, export: str = "") -> None:
        self._handle = nbd.library().NBD()
        self._handle.set_export_name(export)
        self._handle.connect_unix(socket)
        self._error: type[Exception] = nbd.library().Error
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self.size: int = self._handle.get_size()

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

    def _fetched(self, offset: int, length: int) -> bytes:
        parts = []
        try:
            while length:
                piece = bytes(self._handle.pread(min(length, _AT_MOST), offset))
                parts.append(piece)
                offset, length = offset + len(piece), length - len(piece)
        except self._error as error:
            raise OSError(
                f"bytes {offset} to {offset + length} of the disk cannot be read: {error}"
            ) from error
        return b"".join(parts)


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
    """A foreign library's complaint, in bounds."""
    return (str(error) or type(error).__name__).replace("\n", " ")[:500]
