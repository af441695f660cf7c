"""Own copies of chunks: one file each, named by its leaf, below 256 folders.

Promise: a name is there with all of its bytes or not at all, unless the machine lost power: nothing is
synced, and whoever reads compares. A writer that ended in between leaves a file in `writing/`; its lock does
not outlive it. Never follows a link.
"""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from korora.protocol.dedup.names import NAME_BYTES

_WRITING: Final = "writing"
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class _BusyError(Exception):
    """Somebody writes."""


@dataclass(frozen=True, slots=True)
class Chunks:
    """`folder`: a scope's own. OSError from all methods is the storage's."""

    folder: Path

    def prepare(self) -> None:
        for folder in (self.folder.parent, self.folder, self.folder / _WRITING):
            folder.mkdir(mode=0o700, exist_ok=True)

    @contextmanager
    def among_writers(self) -> Iterator[None]:
        """Be one of those that write; for a short time."""
        with self._locked(fcntl.LOCK_SH):
            yield

    @contextmanager
    def alone(self, *, wait: bool) -> Iterator[bool]:
        """Nobody writes meanwhile. False, and it is not so, if somebody does and that is not waited for."""
        try:
            with self._locked(fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)):
                yield True
        except _BusyError:
            yield False

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.folder / "lock", flags, 0o600)
        try:
            try:
                fcntl.flock(descriptor, how)
            except BlockingIOError as error:
                raise _BusyError from error
            yield
        finally:
            os.close(descriptor)

    def write(self, name: bytes, content: bytes | bytearray | memoryview) -> None:
        """`among_writers`. On failure nothing is left."""
        if self.read(name) == content:
            return
        place = self._place(name)
        temporary = self.folder / _WRITING / f"{name.hex()}.{os.getpid()}.{threading.get_ident()}"
        place.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            with open(temporary, "wb", opener=_private) as file:
                file.write(content)
            temporary.replace(place)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise

    def read(self, name: bytes) -> bytes | None:
        """What lies there under that name, whatever it is; None if no file does."""
        try:
            descriptor = os.open(self._place(name), _READ)
        except OSError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            try:
                return file.read((1 << 20) + 1)
            except OSError:
                return None

    def remove(self, name: bytes) -> None:
        """No error when it is gone."""
        with suppress(FileNotFoundError):
            self._place(name).unlink()

    def names(self) -> Iterator[bytes]:
        """Of all that lie there."""
        for folder in sorted(self.folder.glob("[0-9a-f][0-9a-f]")):
            for place in sorted(folder.iterdir()):
                with suppress(ValueError):
                    name = bytes.fromhex(place.name)
                    if len(name) == NAME_BYTES and self._place(name) == place:
                        yield name

    def sweep(self) -> int:
        """While `alone`: take away what others did not finish."""
        left = list((self.folder / _WRITING).iterdir())
        for one in left:
            one.unlink()
        return len(left)

    def _place(self, name: bytes) -> Path:
        written = name.hex()
        return self.folder / written[:2] / written


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
