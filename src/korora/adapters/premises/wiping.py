"""A file whose content nobody shall find again: overwritten where it has any, then removed.

Limit: what the storage keeps beside the file's present blocks (snapshots, copies on write, a flash device's
spare cells) is not reached; the step says so. The room of a removed file is free a moment later: some file
systems take a third of a second for each GiB, and nothing is left to be known of it then.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from korora.model.evidence import WipeStep

_PIECE: Final = bytes(4 << 20)
_AT_ONCE: Final = 64 << 20
METHOD: Final = "overwritten once with zeros, read back, removed"
DEVICE_METHOD: Final = "overwritten once with zeros, read back"
NOTE: Final = "what the storage below keeps of older blocks was not reached"


def wiped(path: Path) -> WipeStep:
    """Blocking. Of a block device the content alone. A file that is not there has nothing to wipe.

    OSError when it cannot be written: it is left as far as it came.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return WipeStep(str(path), METHOD, 0, verified=True, note="there was nothing any more")
    device = stat.S_ISBLK(os.fstat(descriptor).st_mode)
    try:
        parts = list(_data(descriptor, device=device))
        for offset, length in parts:
            _overwrite(descriptor, offset, length)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # so that the storage is read
        verified = all(_is_zero(descriptor, offset, length) for offset, length in parts)
        if not device:
            path.unlink()
    finally:
        if device:  # whoever made it may remove it now
            os.close(descriptor)
        else:
            threading.Thread(target=os.close, args=(descriptor,), name="wiped", daemon=True).start()
    count = sum(length for _, length in parts)
    return WipeStep(str(path), DEVICE_METHOD if device else METHOD, count, verified=verified, note=NOTE)


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


def _overwrite(descriptor: int, offset: int, length: int) -> None:
    """The storage begins to write meanwhile (Linux: by that advice), and the host's cache keeps what others
    have in it."""
    done = told = 0
    while done < length:
        done += os.pwrite(descriptor, _PIECE[: length - done], offset + done)
        if done - told >= _AT_ONCE:
            before = max(0, told - _AT_ONCE)
            os.posix_fadvise(descriptor, offset + before, done - before, os.POSIX_FADV_DONTNEED)
            told = done


def _is_zero(descriptor: int, offset: int, length: int) -> bool:
    done = 0
    while done < length:
        piece = os.pread(descriptor, min(len(_PIECE), length - done), offset + done)
        if not piece or piece != _PIECE[: len(piece)]:
            return False
        os.posix_fadvise(descriptor, offset + done, len(piece), os.POSIX_FADV_DONTNEED)
        done += len(piece)
    return True
