"""Parts of files that are on this host anyway, read where they lie.

Promise: reads the file that was meant, or says that it is gone: no link is followed, no pipe waited for,
another file of that name not read. Limit: a running VM writes to its disk; whoever reads must compare.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from korora.adapters.store.index import Reference
from korora.errors import UsageError

_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_GONE: Final = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO}
_MOST_OPEN: Final = 64


class GoneError(Exception):
    """The file is not there, or another one is."""


def reference_to(path: Path) -> Reference:
    """With links followed, once and for all. UsageError(kind="no-image")."""
    try:
        real = path.resolve(strict=True)
        descriptor = os.open(real, _FLAGS)
    except (OSError, ValueError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"{path} cannot be opened: {why}", kind="no-image", remedy="see that it is there"
        ) from error
    try:
        seen = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not _is_disk(seen):
        raise UsageError(f"{path} is no file and no disk", kind="no-image", remedy="name a disk image")
    return Reference(real, seen.st_dev, seen.st_ino)


@dataclass(slots=True)
class Files:
    """Those that are open, some at a time; for one thread. To be closed."""

    _open: dict[Reference, int]

    def __init__(self) -> None:
        self._open = {}

    def read(self, of: Reference, offset: int, length: int) -> bytes:
        """Less where the file ends. GoneError, or OSError when it cannot be read just now."""
        descriptor = self._open.get(of)
        if descriptor is None:
            descriptor = self._opened(of)
        return os.pread(descriptor, length, offset)

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def _opened(self, of: Reference) -> int:
        try:
            descriptor = os.open(of.path, _FLAGS)
        except OSError as error:
            if error.errno in _GONE:
                raise GoneError(str(of.path)) from error
            raise
        except ValueError as error:  # no path at all
            raise GoneError(str(of.path)) from error
        seen = os.fstat(descriptor)
        if not _is_disk(seen) or (seen.st_dev, seen.st_ino) != (of.device, of.inode):
            os.close(descriptor)
            raise GoneError(str(of.path))
        if len(self._open) >= _MOST_OPEN:
            self.close()
        self._open[of] = descriptor
        return descriptor


def _is_disk(seen: os.stat_result) -> bool:
    return stat.S_ISREG(seen.st_mode) or stat.S_ISBLK(seen.st_mode)
