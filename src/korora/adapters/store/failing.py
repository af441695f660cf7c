"""What can go wrong with a store's files, and what of it is whose."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from korora.adapters.sqlite import Trouble, trouble
from korora.errors import ToolError


class DamagedError(Exception):
    """The index is of no use, or another process has put a new one in its place."""


class LostError(Exception):
    """The origin that was to be added to is not there any more."""


_OF_THE_FILE: Final = ("SQLITE_ERROR", "SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_TOOBIG")
"""Our statements are right for a file of our schema: what they fail with so is the file's."""


def index_failed(path: Path, error: Exception) -> Exception:
    """DamagedError, or ToolError(kind="store-busy" | "store-index")."""
    if not isinstance(error, sqlite3.Error):
        return DamagedError(str(error))  # text that is none, a number that is none
    if getattr(error, "sqlite_errorname", "").startswith(_OF_THE_FILE):
        return DamagedError(str(error))
    match trouble(error):
        case Trouble.DAMAGED:
            return DamagedError(str(error))
        case Trouble.BUSY:
            return ToolError(
                f"another process writes the content store's index {path}",
                kind="store-busy",
                remedy="wait until it is done, then try again",
            )
        case Trouble.OTHER:
            return index_unusable(path, str(error))


def index_unusable(path: Path, why: str) -> ToolError:
    return ToolError(
        f"the content store's index {path} cannot be used: {why}",
        kind="store-index",
        remedy="see that its folder is writable and has room; all of a store may be removed at any time",
    )


def still_damaged(path: Path, why: str) -> ToolError:
    return ToolError(
        f"the content store's index {path} is damaged, and so is the one that was made anew: {why}",
        kind="store-damaged",
        remedy="the storage below it fails: remove the store's folder, or name another one",
    )


def storage_failed(error: OSError) -> ToolError:
    return ToolError(
        f"the content store cannot keep its files: {error.strerror or error}"
        + (f" ({error.filename})" if error.filename else ""),
        kind="store-files",
        remedy="see that its folder is writable and has room, or lower its bound: korora store collect",
    )


def origin_lost() -> ToolError:
    return ToolError(
        "what was being added to the content store was forgotten meanwhile by another process",
        kind="store-changed",
        remedy="add it again",
    )
