"""Options and settings that many commands share, spelt once."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, for scripts.")]
HostArgument = Annotated[
    str | None, typer.Argument(metavar="HOST", help="The host; default: -H, or the only one in reach.")
]
VmArgument = Annotated[str, typer.Argument(metavar="VM", help="The VM's name.")]
To = Annotated[str, typer.Option("--to", metavar="HOST", help="The destination.")]


def group(purpose: str) -> typer.Typer:
    """A command that has commands of its own."""
    return typer.Typer(add_completion=False, no_args_is_help=False, rich_markup_mode=None, help=purpose)
