"""The options that say which disks move with a VM, and how: one value for the commands that take them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from korora.errors import UsageError
from korora.model.storage import ALL, DisksAsked, StorageMode

_DISK_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")


class DiskFormat(StrEnum):
    RAW = "raw"
    QCOW2 = "qcow2"


@dataclass(frozen=True, slots=True)
class DiskOptions:
    """As they were written."""

    disks: Annotated[
        str,
        typer.Option(
            metavar="all|NAME,…",
            help="Disks that move too; the others are on storage that both hosts see.",
        ),
    ] = ""
    disk_format: Annotated[
        DiskFormat | None, typer.Option(help="What they become; without it, what they are.")
    ] = None
    incremental: Annotated[
        bool,
        typer.Option(
            "--incremental",
            help="Send only what differs from what the destination kept, and keep the disks here for a"
            " return.",
        ),
    ] = False
    storage_mode: Annotated[
        StorageMode,
        typer.Option(
            help="How the disks of a running VM are copied: mirrored, or with what the guest writes"
            " outsourced meanwhile; auto looks at the storage first."
        ),
    ] = StorageMode.AUTO
    replacement: Annotated[
        str,
        typer.Option(
            metavar="FOLDER",
            help="Of the source, on durable storage: where the guest writes when it is outsourced; without"
            " it, the VM's own.",
        ),
    ] = ""
    keep_backing: Annotated[
        bool,
        typer.Option(
            "--keep-backing",
            help="Disks come over the images that lie beneath them, which the destination has at the same"
            " paths; without it, each comes as one image.",
        ),
    ] = False

    def asked(self) -> DisksAsked:
        """UsageError for words that say nothing, or that another host would take for something else."""
        names = _names(self.disks)
        about = "--incremental" if self.incremental else "--keep-backing" if self.keep_backing else ""
        if about and not names:
            raise UsageError(
                f"{about} is about disks that move, and none does",
                kind="bad-disks",
                remedy="say which disks move: --disks all",
            )
        if self.replacement and not Path(self.replacement).is_absolute():
            raise UsageError(
                f"--replacement {self.replacement}: it is not known from where",
                kind="bad-replacement",
                remedy="write the folder's whole name on the source, beginning with /",
            )
        return DisksAsked(
            names,
            self.disk_format.value if self.disk_format else "",
            self.incremental,
            self.storage_mode,
            self.replacement,
            self.keep_backing,
        )


def takes_disks(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command those options on the command line, in the place of its parameter `disks`, which has
    what they say."""
    own = inspect.signature(command, eval_str=True)
    options = inspect.signature(DiskOptions, eval_str=True).parameters

    @wraps(command)
    def taking(**said: Any) -> None:
        disks = DiskOptions(**{name: said.pop(name) for name in options})
        command(**said, disks=disks)

    def parameters() -> Iterator[inspect.Parameter]:
        for one in own.parameters.values():
            yield from options.values() if one.annotation is DiskOptions else [one]

    taking.__signature__ = own.replace(parameters=tuple(parameters()))  # type: ignore[attr-defined]
    taking.__annotations__ = {one.name: one.annotation for one in parameters()}
    return taking


def _names(words: str) -> tuple[str, ...]:
    """What `--disks` says: names with commas between them, or `all`. UsageError for anything else."""
    names = tuple(name.strip() for name in words.split(",")) if words.strip() else ()
    if names == ("all",):
        return (ALL,)
    wrong = [name for name in names if _DISK_NAME.fullmatch(name) is None]
    if wrong or len(set(names)) < len(names):
        raise UsageError(
            f"--disks {words}: {f'{wrong[0]!r} is no name of a disk' if wrong else 'a disk is named twice'}",
            kind="bad-disks",
            remedy="write `all`, or the disks' names as `korora vm show` tells them: --disks root,data",
        )
    return names
