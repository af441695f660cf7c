"""Files of this machine below a path. Symbolic links in folders are not followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PASSED_OVER: Final = "passed over"
"""Said of what has no content of its own: links, sockets, pipes, devices in a folder."""


def files_below(path: Path) -> Iterator[tuple[Path, str]]:
    """Files at and below a path, in order, each with "" or why it cannot be looked at."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        yield path, getattr(error, "strerror", None) or str(error)
        return
    if not stat.S_ISDIR(mode):
        yield path, ""
        return
    folders = [path]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            yield folder, error.strerror or str(error)
            continue
        below = [entry for entry in inside if entry.is_dir(follow_symlinks=False)]
        folders += [Path(entry.path) for entry in reversed(below)]
        for entry in inside:
            if entry.is_file(follow_symlinks=False):
                yield Path(entry.path), ""
            elif entry not in below:
                yield Path(entry.path), PASSED_OVER
