"""The demonstration's own lab folder: made, owned, and cleared away, whatever happens.

Promise: what a killed demonstration left is removed by the next one; a lab that was kept on purpose, or
whose demonstration still runs, is not touched. Limit: /run must exist (it does on Debian).
"""

from __future__ import annotations

import os
from pathlib import Path

PARENT = Path("/run")
_OURS, _KEPT = "korora-demo-", "korora-kept-"
_PROGRAM = b"korora.lab.demo"


def new_folder(*, keep: bool, parent: Path = PARENT) -> Path:
    """Where this process's lab shall be. Its name says whose it is, and whether anybody may clear it away."""
    return parent / f"{_KEPT if keep else _OURS}{os.getpid()}"


def leftovers(parent: Path = PARENT) -> list[Path]:
    """Folders of demonstrations that were killed: whoever made them does not run any more."""
    found = sorted(parent.glob(f"{_OURS}[0-9]*"))
    return [folder for folder in found if not _demonstrates(folder.name.removeprefix(_OURS))]


def _demonstrates(pid: str) -> bool:
    """Whether that process is a demonstration now; a number may have gone to somebody else, or be our own."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return pid != str(os.getpid()) and _PROGRAM in words
