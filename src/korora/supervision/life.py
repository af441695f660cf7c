"""One line of a VM's life, kept in its directory: since when it runs, or when and why it last stopped.

It tells a person, and a daemon that starts, what happened. It grants nothing: who may run a VM is the
journal's to say.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from korora.errors import ToolError

_FILE = "life.json"
_LIMIT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class LifeNote:
    """`at` is Unix seconds."""

    running: bool
    at: float
    reason: str


def write_life(directory: Path, note: LifeNote) -> None:
    """Replace the note. ToolError when the directory cannot be written; the old note stays then."""
    write_whole(directory / _FILE, json.dumps(asdict(note)).encode())


def read_life(directory: Path) -> LifeNote | None:
    """The last note; None when there is none that can be read."""
    data = read_bounded(directory / _FILE, _LIMIT_BYTES)
    try:
        raw = json.loads(data) if data is not None else None
        return LifeNote(bool(raw["running"]), float(raw["at"]), str(raw["reason"])) if raw else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def write_whole(file: Path, data: bytes) -> None:
    """Replace a private file so that a reader, or a crash, sees the old content or the new, whole."""
    fresh = file.with_name(f".{file.name}.new")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(file)
    except OSError as problem:
        raise ToolError(
            f"cannot write {file}: {problem.strerror}",
            kind="state-directory",
            remedy="see that the daemon's state directory exists, is writable and has room",
        ) from problem


def read_bounded(file: Path, limit: int) -> bytes | None:
    """At most `limit` + 1 bytes of a file, so that a longer one shows; None when there is none."""
    try:
        with file.open("rb") as stream:
            return stream.read(limit + 1)
    except OSError:
        return None
