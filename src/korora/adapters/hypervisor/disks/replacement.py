"""The storage that takes a guest's writes while its disks move: whether it will do, and still does.

Limit: others write there, too. What runs full all the same stops the guest (QEMU's `werror=enospc`) until its
writes are folded back; nothing is lost.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from korora.errors import RefusedError, ToolError

LOW_BYTES: Final = 64 << 20
"""A move is broken off with less than this left."""
_PART: Final = 16
"""Of a disk, that a guest is expected to write at most while it moves."""
_MOUNTS: Final = Path("/proc/self/mountinfo")
_VOLATILE: Final = frozenset({"tmpfs", "ramfs"})


def needed(sizes: Iterable[int]) -> int:
    """Bytes that must be free for disks of these sizes. All of a small disk may be written again."""
    return sum(min(size + size // 64 + (1 << 20), max(2 * LOW_BYTES, size // _PART)) for size in sizes)


def refuse_unfit(folder: Path, sizes: Iterable[int], originals: Iterable[str]) -> None:
    """RefusedError: kind="replacement" where it is not there or forgets; "replacement-room" without room."""
    try:
        free, volatile = _free(folder), _is_volatile(folder)
    except OSError as error:
        raise _refused(folder, error.strerror or str(error), "replacement") from error
    if volatile and not all(_is_volatile(Path(path)) for path in originals):
        raise _refused(folder, "it is in memory: what the guest has flushed would not outlive the host")
    wanted = needed(sizes)
    if free < wanted:
        words = f"it has room for {free >> 20} MiB, and {-(-wanted >> 20)} MiB may be needed"
        raise _refused(folder, words, "replacement-room")


def refuse_low(folder: Path, sizes: Iterable[int]) -> None:
    """ToolError(kind="replacement-full") when it is time to break off."""
    try:
        left = _free(folder)
    except OSError:
        left = 0
    if left < min(LOW_BYTES, needed(sizes) // 2):
        raise ToolError(
            f"{folder}, where the guest writes while its disks move, has only {left >> 10} KiB left",
            kind="replacement-full",
            remedy="nothing was lost: what it wrote is folded back into its disks; make room there, name"
            " another folder with --replacement, or move with --storage-mode mirror",
        )


def to_spare(folder: Path, sizes: Iterable[int]) -> int:
    """Bytes beyond what the guest's writes may need; half of them, for it is not alone there."""
    try:
        return max(0, _free(folder) - 2 * needed(sizes)) // 2
    except OSError:
        return 0


def _free(folder: Path) -> int:
    told = os.statvfs(folder)
    return told.f_bavail * told.f_frsize


def _is_volatile(path: Path) -> bool:
    device = path.stat().st_dev
    here = f"{os.major(device)}:{os.minor(device)}"
    for line in _MOUNTS.read_text().splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[2] == here:
            return after.split()[0] in _VOLATILE
    return False


def _refused(folder: Path, reason: str, kind: str = "replacement") -> RefusedError:
    return RefusedError(
        f"the guest's writes cannot go to {folder} while its disks move: {reason}",
        kind=kind,
        remedy="name another folder with --replacement, or move with --storage-mode mirror",
    )
