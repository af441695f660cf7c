"""Overwrite and remove a directory's files, and say honestly what that is worth.

Promise: every regular file's present blocks are overwritten, synced and read back before it is unlinked.
Limit: what the storage keeps elsewhere (journals, snapshots, an SSD's spare cells, backups) is out of
reach; for those copies the protection is that their key cannot be unsealed any more.
"""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from korora.model.evidence import WipeStep
from korora.model.identity import VmName

_PIECE = 1 << 20
_NOTE = (
    "overwriting reaches the blocks the files have now: copies in a journalling or copy-on-write file"
    " system, in snapshots, backups or an SSD's spare cells may remain, encrypted under a key that was"
    " sealed under a counter"
)


@dataclass(frozen=True, slots=True)
class Erased:
    files: int
    bytes: int
    verified: bool  # each file read back as zeros


def erase(directory: Path) -> Erased:
    """Erase everything below `directory`, and itself. Symbolic links are removed, never followed."""
    files = total = 0
    verified = True
    for folder, _, names in os.walk(directory):
        for name in names:
            path = Path(folder) / name
            if stat.S_ISREG(path.lstat().st_mode):
                size, clean = _overwrite(path)
                files, total, verified = files + 1, total + size, verified and clean
    if directory.exists():
        shutil.rmtree(directory)
    return Erased(files, total, verified)


def wipe_step(vm: VmName, erased: Erased, *, counter_moved: bool) -> WipeStep:
    counter = "counter incremented and removed" if counter_moved else "no counter of it in the TPM"
    return WipeStep(
        what=f"vTPM of {vm}: state and sealed key at rest ({erased.files} files)",
        method=f"processes ended; {counter}; files overwritten with zeros, synced, read back, unlinked",
        bytes=erased.bytes,
        verified=erased.verified,
        note=_NOTE + (" that is gone" if counter_moved else "; no such counter was found to remove"),
    )


def _overwrite(path: Path) -> tuple[int, bool]:
    """Size, and whether it reads back as zeros."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        for start in range(0, size, _PIECE):
            os.pwrite(file.fileno(), bytes(min(_PIECE, size - start)), start)
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # so that reading back asks the storage
        clean = all(not any(os.pread(file.fileno(), _PIECE, start)) for start in range(0, size, _PIECE))
    return size, clean
