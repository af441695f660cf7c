"""Options and settings that many commands share, spelt once."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from korora.model.storage import StorageMode

AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, for scripts.")]
HostArgument = Annotated[
    str | None, typer.Argument(metavar="HOST", help="The host; default: -H, or the only one in reach.")
]
VmArgument = Annotated[str, typer.Argument(metavar="VM", help="The VM's name.")]
Disks = Annotated[
    str,
    typer.Option(
        "--disks",
        metavar="all|NAME,…",
        help="Disks that move too; the others are on storage that both hosts see.",
    ),
]


class DiskFormat(StrEnum):
    RAW = "raw"
    QCOW2 = "qcow2"


DiskFormatOption = Annotated[
    DiskFormat | None, typer.Option("--disk-format", help="What they become; without it, what they are.")
]
Incremental = Annotated[
    bool,
    typer.Option(
        "--incremental",
        help="Send only what differs from what the destination kept, and keep the disks here for a return.",
    ),
]
StorageModeOption = Annotated[
    StorageMode,
    typer.Option(
        help="How the disks of a running VM are copied: mirrored, or with what the guest writes outsourced"
        " meanwhile; auto looks at the storage first."
    ),
]
Replacement = Annotated[
    str,
    typer.Option(
        metavar="FOLDER",
        help="Of the source, on durable storage: where the guest writes when it is outsourced; without it,"
        " the VM's own.",
    ),
]
KeepBacking = Annotated[
    bool,
    typer.Option(
        "--keep-backing",
        help="Disks come over the images that lie beneath them, which the destination has at the same paths;"
        " without it, each comes as one image.",
    ),
]
To = Annotated[str, typer.Option("--to", metavar="HOST", help="The destination.")]


def group(purpose: str) -> typer.Typer:
    """A command that has commands of its own."""
    return typer.Typer(add_completion=False, no_args_is_help=False, rich_markup_mode=None, help=purpose)
