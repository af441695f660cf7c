"""Which diff is being applied to an image itself: written before its first byte, removed after the last.

Promise: while it lies beside the image, that is between two contents, and is no disk to use; the same diff
makes it whole. It is on stable storage before anything is written to the image.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal

import msgspec

from korora.adapters.durable import sync_folder
from korora.errors import IntegrityError, KororaError, RefusedError
from korora.model.image import UNFINISHED_SUFFIX
from korora.model.image_record import Root
from korora.protocol import canonical
from korora.wiring.disk_diffs.file import DiffFile, unwritten

_MAX_BYTES: Final = 1 << 16


class Journal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`diff`: its name, `file` where it was; from the base with the one root to the result with the other."""

    version: Literal[1] = 1
    diff: str
    file: str
    base: Root
    result: Root


def beside(image: Path) -> Path:
    return image.with_name(image.name + UNFINISHED_SUFFIX)


def found(image: Path) -> Journal | None:
    """IntegrityError(kind="bad-journal") when it cannot be read."""
    try:
        with beside(image).open("rb") as file:
            return canonical.decoded(file.read(_MAX_BYTES), Journal)
    except FileNotFoundError:
        return None
    except (OSError, KororaError) as error:
        raise IntegrityError(
            f"{beside(image)} says that a diff was being applied, and cannot be read: {error}",
            kind="bad-journal",
            remedy="take the image for damaged: have it back from a copy, then remove the file",
        ) from error


def begin(image: Path, diff: DiffFile) -> None:
    """ToolError(kind="output") when it cannot be kept; then nothing may be written to the image."""
    said = Journal(
        diff=diff.name,
        file=str(diff.path.absolute()),
        base=diff.said.base.root,
        result=diff.said.result.root,
    )
    path = beside(image)
    new = path.with_name(path.name + ".new")
    try:
        with new.open("wb") as file:
            file.write(canonical.encoded(said))
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise unwritten(path, error) from error


def end(image: Path) -> None:
    beside(image).unlink(missing_ok=True)
    sync_folder(image.parent)


def refuse_unfinished(image: Path, diff: str | None = None) -> None:
    """RefusedError(kind="unfinished-apply") where another diff than this one was broken off."""
    kept = found(image)
    if kept is not None and kept.diff != diff:
        raise RefusedError(
            f"{image} is between two contents: a diff was being applied to it",
            kind="unfinished-apply",
            remedy=f"finish it: korora disk diff apply {kept.file} {image} --in-place",
        )
