"""Whatever went wrong, told once and turned into an exit code."""

from __future__ import annotations

import sys
import traceback

from korora.cli.render import error_object, error_text, say_json, warn
from korora.errors import ExitCode, KororaError, UsageError


def understood(error: Exception, command: str = "korora") -> KororaError:
    """The error as a KororaError: its own, a wrong command line, or a bug."""
    import typer

    if isinstance(error, KororaError):
        return error
    if isinstance(error, typer.TyperException):
        return UsageError(error.format_message(), kind="usage", remedy=f"see `{command} --help`")
    return KororaError(
        f"this is a bug in Korora: {type(error).__name__}: {error}",
        kind="bug",
        remedy="run it again as `korora --debug …` and report what it shows, with `korora --version`;"
        " `korora vm list` says where each VM runs",
    )


def told(error: KororaError, *, as_json: bool) -> ExitCode:
    """Tell it on standard error, and with `--json` as an object on standard output; returns the exit code."""
    if as_json:
        say_json({"error": error_object(error)})
    warn(error_text(error))
    return error.exit_code


def trace(error: BaseException) -> None:
    """The traceback, for `--debug`."""
    warn("".join(traceback.format_exception(error)).rstrip())
    sys.stderr.flush()
