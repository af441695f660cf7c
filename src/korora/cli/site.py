"""Find and read korora.toml: the place where the command line touches its configuration file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from korora import named_file
from korora.errors import UsageError

if TYPE_CHECKING:
    from korora.model.site import SiteConfiguration

VARIABLE = "KORORA_CONFIG"
SYSTEM = Path("/etc/korora/korora.toml")


def load_site(given: Path | None) -> SiteConfiguration:
    """The site as configured, with every path absolute. UsageError when there is no file, or a bad one."""
    from korora.model.site import parse_site  # not for who only reads some other file

    path = given or found()
    return parse_site(read_text(path, "the configuration"), str(path)).placed(path.absolute().parent)


def found() -> Path:
    """$KORORA_CONFIG, or the first of the default places that exists."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    for path in default_places():
        if path.exists():
            return path
    raise UsageError(
        f"there is no configuration: looked at {' and '.join(map(str, default_places()))}",
        kind="no-config",
        remedy=f"give --config FILE or set {VARIABLE}; `korora lab up` writes one and prints its path",
    )


def default_places() -> tuple[Path, Path]:
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path("~").expanduser() / ".config")
    return SYSTEM, Path(home) / "korora" / "korora.toml"


def read_text(path: Path, what: str) -> str:
    """A text file that the user named. UsageError says which, and why it cannot be read."""
    try:
        return read_bytes(path, what).decode()
    except UnicodeDecodeError as error:
        raise _unreadable(path, what, "it is not UTF-8 text", "is it the right file?") from error


def read_bytes(path: Path, what: str, limit: int | None = None) -> bytes:
    """A file that the user named. With a `limit`, of a longer file one byte more, so that it shows; else an
    error for one of more than `named_file.MAX_BYTES`."""
    try:
        return named_file.read(path) if limit is None else named_file.beginning(path, limit)
    except FileNotFoundError as error:
        raise _unreadable(path, what, "there is no such file", "correct the path") from error
    except PermissionError as error:
        remedy = "run as a user who may read it, or correct the path"
        raise _unreadable(path, what, error.strerror or str(error), remedy) from error
    except OSError as error:
        remedy = "name the right one: a plain file of at most 16 MiB"
        raise _unreadable(path, what, error.strerror or str(error), remedy) from error


def _unreadable(path: Path, what: str, why: str, remedy: str) -> UsageError:
    return UsageError(f"{what} {path} cannot be read: {why}", kind="unreadable-file", remedy=remedy)
