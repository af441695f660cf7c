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
SYSTEM: Final = tuple(
    map(PurePosixPath, ("/bin", "/boot", "/lib", "/lib32", "/lib64", "/sbin", "/usr", "/var/spool"))
)
"""What the host itself runs: a kernel may be read from there, but no disk lies there."""
FIRMWARE: Final = tuple(map(PurePosixPath, ("/usr/share/OVMF", "/usr/share/qemu", "/usr/share/seabios")))
"""What the distribution's packages bring for every VM, which none of them may write."""


@dataclass(frozen=True, slots=True)
class StorageRule:
    """`folders` are the administrator's; empty means everywhere but in CLOSED, and for what the VM can write
    not in SYSTEM either. `own` is never given away.
    """

    folders: tuple[PurePosixPath, ...] = ()
    own: tuple[PurePosixPath, ...] = ()

    def allows(self, path: PurePosixPath, *, written: bool) -> bool:
        """Whether the VM may have this file; `written` says that it could change it, as it can its disks."""
        if not path.is_absolute() or ".." in path.parts or _is_below(path, self.own):
            return False
        if self.folders:
            return _is_below(path, self.folders if written else (*self.folders, *FIRMWARE))
        return not _is_below(path, (*CLOSED, *SYSTEM) if written else CLOSED)


def _is_below(path: PurePosixPath, folders: tuple[PurePosixPath, ...]) -> bool:
    return any(path == folder or folder in path.parents for folder in folders)
