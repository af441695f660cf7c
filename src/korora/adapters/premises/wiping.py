"""A file whose content nobody shall find again: overwritten where it has any, then removed.

Limit: what the storage keeps beside the file's present blocks (snapshots, copies on write, a flash device's
spare cells) is not reached; the step says so.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from korora.model.evidence import WipeStep

_PIECE: Final = bytes(4 << 20)
METHOD: Final = "overwritten once with zeros, then removed"
DEVICE_METHOD: Final = "overwritten once with zeros"
NOTE: Final = "what the storage below keeps of older blocks was not reached"


def wiped(path: Path) -> WipeStep:
    """Blocking. Of a block device the content alone. A file that is not there has nothing to wipe.

    OSError when it cannot be written: it is left as far as it came.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return WipeStep(str(path), METHOD, 0, verified=True, note="there was nothing any more")
    try:
        device = stat.S_ISBLK(os.fstat(descriptor).st_mode)
        count = 0
        for offset, length in _data(descriptor, device=device):
            count += _overwritten(descriptor, offset, length)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if device:
        return WipeStep(str(path), DEVICE_METHOD, count, verified=False, note=NOTE)
    path.unlink()
    return WipeStep(str(path), METHOD, count, verified=False, note=NOTE)


def _data(descriptor: int, *, device: bool) -> Iterator[tuple[int, int]]:
    """(offset, length) of what is not a hole."""
    size = os.lseek(descriptor, 0, os.SEEK_END)
    if device:
        yield 0, size
        return
    at = 0
    while at < size:
        try:
            begin = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:  # ENXIO: no data is left
            return
        at = os.lseek(descriptor, begin, os.SEEK_HOLE)
        yield begin, at - begin


def _overwritten(descriptor: int, offset: int, length: int) -> int:
    done = 0
    while done < length:
        done += os.pwrite(descriptor, _PIECE[: length - done], offset + done)
    return done
