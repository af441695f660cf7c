"""Which files of this host a VM that comes from elsewhere may have: its disks, kernels and firmware (S1).

Pure: paths are real ones already, absolute and without links. Limit: it judges names. That nobody puts
another file in the place of one that was judged is up to who may write to that folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

CLOSED: Final = tuple(map(PurePosixPath, ("/proc", "/sys", "/dev", "/etc", "/root")))
"""Where no VM's files are, unless the administrator says so."""
FIRMWARE: Final = tuple(map(PurePosixPath, ("/usr/share/OVMF", "/usr/share/qemu", "/usr/share/seabios")))
"""What the distribution's packages bring for every VM."""


@dataclass(frozen=True, slots=True)
class StorageRule:
    """`folders` are the administrator's; empty means everywhere but in CLOSED. `own` is never given away."""

    folders: tuple[PurePosixPath, ...] = ()
    own: tuple[PurePosixPath, ...] = ()

    def allows(self, path: PurePosixPath) -> bool:
        if not path.is_absolute() or ".." in path.parts or _is_below(path, self.own):
            return False
        if self.folders:
            return _is_below(path, (*self.folders, *FIRMWARE))
        return not _is_below(path, CLOSED)


def _is_below(path: PurePosixPath, folders: tuple[PurePosixPath, ...]) -> bool:
    return any(path == folder or folder in path.parents for folder in folders)
