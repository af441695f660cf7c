"""Where the indicators are: `--store`, or a file beside the configuration in use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from korora.cli.invocation import Invocation
from korora.cli.site import default_places, found
from korora.errors import UsageError

NAME = "indicators.db"
Store = Annotated[
    Path | None,
    typer.Option(
        "--store", metavar="FILE", help=f"The indicators; default: {NAME} beside the configuration."
    ),
]


def located(context: typer.Context, given: Path | None) -> Path:
    """Without a configuration, where the user's own would be."""
    if given is not None:
        return given
    try:
        return (Invocation.of(context).config or found()).absolute().with_name(NAME)
    except UsageError:
        return default_places()[1].with_name(NAME)
