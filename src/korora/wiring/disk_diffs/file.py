"""A diff as a file: its head is verified when it is opened, and written last when it is made.

Promise: a file that is made is there whole, on stable storage, or not at all.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from korora.adapters.durable import sync_folder
from korora.adapters.image import files
from korora.errors import ToolError, UsageError
from korora.protocol import dsse
from korora.protocol.disk_diff.chunks import Record
from korora.protocol.disk_diff.records import read
from korora.protocol.disk_diff.statement import HEAD_BYTES, DiskDiff, bad, opened

PARTIAL = ".partial"


@dataclass(frozen=True, slots=True)
class DiffFile:
    """`name`: SHA-256 of its head, which is of all of it, for the head has its digest."""

    path: Path
    said: DiskDiff
    name: str
    _file: BinaryIO

    def records(self) -> Iterator[Record]:
        """From the first on. IntegrityError as `protocol.disk_diff.records.read`."""
        self._file.seek(HEAD_BYTES)
        return read(self._file.read, self.said)

    def check(self) -> None:
        """Read through to its end: from then on it is known that these are the records that were signed."""
        for _ in self.records():
            pass


@contextmanager
def diff_at(path: Path, trusted: Mapping[str, dsse.PublicKey]) -> Iterator[DiffFile]:
    """IntegrityError unless one of these keys signed it, and it is as long as was signed."""
    with files.opened(path) as file:
        head = file.read(HEAD_BYTES)
        said = opened(head, trusted)
        length = os.fstat(file.fileno()).st_size - HEAD_BYTES
        if length != said.length:
            raise bad(f"it is {'cut short' if length < said.length else 'longer than what was signed'}")
        yield DiffFile(path, said, hashlib.sha256(head).hexdigest(), file)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Readable for its owner alone; there only when it is left without an error. Written as NAME.partial."""
    partial = free(path)
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unwritten(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        settle(partial, path)
    except OSError as error:
        raise unwritten(path, error) from error
    finally:
        partial.unlink(missing_ok=True)


def unwritten(path: Path, error: OSError) -> ToolError:
    return ToolError(
        f"{path} cannot be written: {error.strerror or error}",
        kind="output",
        remedy="make room for it, or name another place",
    )


def free(path: Path) -> Path:
    """Where it is written first. UsageError(kind="exists") when there is a file already."""
    partial = path.with_name(path.name + PARTIAL)
    for one in (path, partial):
        if os.path.lexists(one):
            raise UsageError(
                f"{one} is there already",
                kind="exists",
                remedy="name a new file"
                if one is path
                else "somebody writes it, or a crash left it: remove it in that case",
            )
    return partial


def settle(partial: Path, path: Path) -> None:
    """It gets its name, and keeps it across a crash. FileExistsError rather than to write over another."""
    os.link(partial, path)
    partial.unlink()
    sync_folder(path.parent)
