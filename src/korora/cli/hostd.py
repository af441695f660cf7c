"""`korora hostd`: be the daemon of this host, in the foreground, until SIGTERM."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from korora import named_file
from korora.cli.options import AsJson
from korora.cli.render import say_json
from korora.errors import UsageError
from korora.model.configuration import HostConfiguration, parse_host_configuration

DEFAULT = Path("/etc/korora/hostd.toml")


def hostd(
    config: Annotated[Path, typer.Option(help="The host's configuration.")] = DEFAULT,
    log: Annotated[Path | None, typer.Option(help="Write the log here and not to standard error.")] = None,
    as_json: AsJson = False,
) -> int:
    """Be the daemon of this host, in the foreground, until SIGTERM.

    With --json: an object a line on standard output, when it is ready and when it stops; or the error.
    """
    configuration = read_configuration(config)
    # A wrong configuration shall not have to wait for these imports.
    from korora.host.daemon import run
    from korora.wiring.host import wire_host

    return run(configuration, wire_host, log, _tell if as_json else _silent)


def _tell(state: str, host: HostConfiguration) -> None:
    say_json(
        {"event": state, "host": host.name, "api": host.api, "listen": str(host.listen), "pid": os.getpid()}
    )


def _silent(_state: str, _host: HostConfiguration) -> None:
    """The log says it."""


def read_configuration(file: Path) -> HostConfiguration:
    """UsageError(kind="bad-configuration") that names the file, and the key where it is one."""
    try:
        text = named_file.read(file).decode()
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not UTF-8 text"
        raise UsageError(
            f"cannot read {file}: {reason}",
            kind="bad-configuration",
            remedy="name the host's configuration: korora hostd --config FILE",
        ) from problem
    return parse_host_configuration(text, file.absolute())
