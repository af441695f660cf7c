"""A file that a person names: opened without waiting, read within a bound.

Promise: neither a pipe that nobody fills nor a device that never ends keeps whoever reads it. Plain files are
opened, `/dev/null`, and pipes without a name in any folder, as a shell makes them (`<(…)`, `/dev/stdin`): who
fills one is waited for. All else is an OSError whose `strerror` says what it is. Limit: says nothing of what
lies in the file.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

MAX_BYTES: Final = 16 << 20
"""Of what is written by hand: configuration, policies, rules, keys."""
_NULL: Final = os.makedev(1, 3)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """OSError before anything is opened that might wait, or do something for being opened."""
    try:
        _check(path, path.stat())
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except ValueError as error:
        raise OSError(errno.EINVAL, "there is a null character in its name", str(path)) from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        _check(path, status)  # it may be another one by now
        os.set_blocking(descriptor, stat.S_ISFIFO(status.st_mode))
        yield file


def beginning(path: Path, limit: int) -> bytes:
    """All of it; of a longer file one byte more than `limit`, so that it shows. OSError."""
    with opened(path) as file:
        data = file.read(limit + 1)
    if data is None:  # of a file of the kernel's that has nothing to say yet
        raise OSError(errno.EAGAIN, "nothing can be read from it now", str(path))
    return data


def read(path: Path, limit: int = MAX_BYTES) -> bytes:
    """All of it. OSError, also when it has more than `limit` bytes."""
    data = beginning(path, limit)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit} bytes", str(path))
    return data


def _check(path: Path, status: os.stat_result) -> None:
    what = stat.S_IFMT(status.st_mode)
    if what == stat.S_IFREG or (what == stat.S_IFCHR and status.st_rdev == _NULL):
        return
    if what == stat.S_IFIFO and _has_no_name(path):
        return
    raise OSError(errno.EINVAL, _WHAT.get(what, "it is no file"), str(path))


_WHAT: Final = {
    stat.S_IFDIR: "it is a folder",
    stat.S_IFIFO: "it is a named pipe, and no file",
    stat.S_IFSOCK: "it is a socket, and no file",
    stat.S_IFCHR: "it is a device, and no file",
    stat.S_IFBLK: "it is a device, and no file",
}


def _has_no_name(path: Path) -> bool:
    """Whether a pipe can be reached by a process's descriptors alone."""
    leads = os.path.realpath(path)
    return leads.startswith("/proc/") and os.path.basename(leads).startswith("pipe:[")  # noqa: PTH119
