"""The files of images and packages on this host: what they begin with, and their hashes.

Promise: opens what it is given, waits for nobody, writes nothing; what is no file or disk is refused.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from korora.errors import IntegrityError, ToolError, UsageError
from korora.model.image import Slice

_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Identity:
    """Of a file's content, as far as the kernel tells: another one has another.

    Limit: the kernel keeps no time of writing for a block device's content.
    """

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int
    """Unlike the time before it, nobody can set this one back."""


def identity(path: Path) -> Identity:
    with opened(path) as file:
        seen = os.fstat(file.fileno())
        return Identity(
            seen.st_dev, seen.st_ino, file.seek(0, os.SEEK_END), seen.st_mtime_ns, seen.st_ctime_ns
        )


def ends(path: Path, head: int, tail: int) -> tuple[bytes, bytes]:
    """So many bytes from its beginning, and from its end."""
    with _legible(path) as file:
        first = file.read(head)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - tail))
        return first, file.read(tail)


def head(path: Path, count: int, part: Slice | None = None) -> bytes:
    """So many bytes from its beginning, or all of it."""
    with _legible(path) as file:
        file.seek(part.offset if part else 0)
        return file.read(min(count, part.length) if part else count)


def read(path: Path, limit: int, part: Slice | None = None) -> bytes:
    """All of it. UsageError(kind="too-large") beyond `limit` bytes."""
    with _legible(path) as file:
        length = part.length if part else file.seek(0, os.SEEK_END)
        if length > limit:
            raise UsageError(f"{path} is larger than {limit} bytes", kind="too-large")
        file.seek(part.offset if part else 0)
        return file.read(length)


def pieces(path: Path, part: Slice) -> Iterator[bytes]:
    """All of a part of it, as far as the file goes."""
    with _legible(path) as file:
        file.seek(part.offset)
        left = part.length
        while left and (piece := file.read(min(_PIECE, left))):
            yield piece
            left -= len(piece)


def hashed(path: Path, algorithm: str, part: Slice | None = None) -> str:
    """In hex."""
    state = hashlib.new(algorithm, usedforsecurity=False)
    with _legible(path) as file:
        left = part.length if part else file.seek(0, os.SEEK_END)
        file.seek(part.offset if part else 0)
        while left and (piece := file.read(min(_PIECE, left))):
            state.update(piece)
            left -= len(piece)
    if left:
        raise IntegrityError(f"{path} ends {left} bytes too early", kind="bad-image")
    return state.hexdigest()


def opened(path: Path) -> BinaryIO:
    """For reading; never waits for a pipe's other end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be opened: {error.strerror}", kind="no-image", remedy="see that it is there"
        ) from error
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        os.close(descriptor)
        raise UsageError(f"{path} is no file and no disk", kind="no-image", remedy="name a disk image")
    return os.fdopen(descriptor, "rb")


@contextmanager
def _legible(path: Path) -> Iterator[BinaryIO]:
    """ToolError(kind="unreadable") where the storage below it fails."""
    with opened(path) as file:
        try:
            yield file
        except OSError as error:
            raise ToolError(
                f"{path} cannot be read: {error.strerror}",
                kind="unreadable",
                remedy="the storage below it fails; nothing is said of it",
            ) from error


def read_into(space: memoryview, descriptor: int, place: int | None) -> None:
    """All of it; of zeros if `place` is None. OSError, also where the file ends too early."""
    if place is None:
        space[:] = bytes(len(space))
        return
    while space:
        count = os.preadv(descriptor, [space], place)
        if count == 0:
            raise OSError(errno.EIO, "the file ends there")
        space, place = space[count:], place + count
