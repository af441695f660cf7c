"""The files of images and packages on this host: what they begin with, what lies in an archive, their hashes.

Promise: opens what it is given, follows nothing, writes nothing; what is no file or disk is refused.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from korora.errors import IntegrityError, UsageError
from korora.model.image import MAX_MEMBERS, Slice, is_plain

_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Identity:
    """Of a file's content, as far as the kernel tells: another one has another."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int  # which nobody can set back


def identity(path: Path) -> Identity:
    with _opened(path) as file:
        seen = os.fstat(file.fileno())
        size = file.seek(0, os.SEEK_END)
        return Identity(seen.st_dev, seen.st_ino, size, seen.st_mtime_ns, seen.st_ctime_ns)


def ends(path: Path, head: int, tail: int) -> tuple[bytes, bytes]:
    """So many bytes from its beginning, and from its end."""
    with _opened(path) as file:
        first = file.read(head)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - tail))
        return first, file.read(tail)


def read(path: Path, limit: int, part: Slice | None = None) -> bytes:
    """All of it. UsageError(kind="too-large") beyond `limit` bytes."""
    with _opened(path) as file:
        length = part.length if part else file.seek(0, os.SEEK_END)
        if length > limit:
            raise UsageError(f"{path} is larger than {limit} bytes", kind="too-large")
        file.seek(part.offset if part else 0)
        return file.read(length)


def hashed(path: Path, algorithm: str, part: Slice | None = None) -> str:
    """In hex."""
    state = hashlib.new(algorithm, usedforsecurity=False)
    with _opened(path) as file:
        left = part.length if part else file.seek(0, os.SEEK_END)
        file.seek(part.offset if part else 0)
        while left and (piece := file.read(min(_PIECE, left))):
            state.update(piece)
            left -= len(piece)
    if left:
        raise IntegrityError(f"{path} ends {left} bytes too early", kind="bad-image")
    return state.hexdigest()


def members(path: Path) -> dict[str, Slice]:
    """The files of a package in one archive (tar). IntegrityError when it is none, or hides something."""
    found: dict[str, Slice] = {}
    try:
        with _opened(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in _some(archive):
                if not member.isreg() or member.issparse() or not is_plain(member.name):
                    raise _bad(path, f"it has {member.name!r}, which is no plain file of a package")
                if member.name in found:
                    raise _bad(path, f"it has {member.name!r} more than once")
                found[member.name] = Slice(member.offset_data, member.size)
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        raise _bad(path, str(error)) from error
    return found


def _some(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for number, member in enumerate(archive):
        if number >= MAX_MEMBERS:
            raise _bad(Path(str(archive.name)), f"it has more than {MAX_MEMBERS} files")
        yield member


def _bad(path: Path, problem: str) -> IntegrityError:
    return IntegrityError(f"{path} is no package: {problem}", kind="bad-package")


def _opened(path: Path) -> BinaryIO:
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
        raise UsageError(f"{path} is no file and no disk", kind="no-image")
    return os.fdopen(descriptor, "rb")
