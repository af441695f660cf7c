"""A site's authorization, looked at without a daemon: what is wrong with its files, and what they answer."""

from __future__ import annotations

from pathlib import Path
from zoneinfo import ZoneInfo

from korora.adapters.authorization import cedar
from korora.adapters.authorization.files import FileAuthorizer, read
from korora.errors import UsageError
from korora.policy.authorization import parse
from korora.ports.authorizer import Authorizer


def problems(path: Path) -> list[str]:
    """Everything that is wrong with authorization.toml and the policies beside it, each with its file."""
    try:
        texts = read(path)
    except UsageError as error:
        return [error.message]
    found = []
    try:
        parse(texts[path], ZoneInfo)
    except UsageError as error:
        found.append(f"{path}: {error.message.removeprefix('the rules cannot be used: ')}")
    return found + list(cedar.problems({str(file): text for file, text in texts.items() if file != path}))


def authorizer(path: Path) -> Authorizer:
    """UsageError when the files cannot be used."""
    return FileAuthorizer(path)
