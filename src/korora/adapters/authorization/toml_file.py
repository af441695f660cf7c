"""The access list in a file that an administrator edits while the daemon runs.

Promise: each decision uses the file as it is at that moment; while it cannot be used, nothing is allowed, so
that a slip of the pen never keeps a right that was taken away. Limit: whoever may write the file decides, so
one that others than its owner may write is refused.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import structlog

from korora.errors import UsageError
from korora.model.authorization import Authorized, Denied
from korora.model.identity import OperatorName
from korora.model.plan import MigrationRequest
from korora.policy.authorization import AccessList, parse

MAX_BYTES = 1024 * 1024

_log = structlog.get_logger(__name__)


class TomlAuthorizer:
    """Implements `ports.authorizer.Authorizer`. UsageError at once when the file cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = _read(path)
        self._list = _parsed(path, self._text)

    def check(self) -> None:
        """UsageError while the file as it is now allows nobody anything."""
        self._current()

    def operator_key(self, operator: str) -> bytes | None:
        return self._current().keys.get(OperatorName(operator))

    def decide(self, request: MigrationRequest) -> Authorized | Denied:
        return self._current().decide(request)

    def _current(self) -> AccessList:
        # Contents, not times: two edits within one clock tick and of one size are still two.
        text = _read(self._path)
        if text != self._text:
            self._list, self._text = _parsed(self._path, text), text
            _log.info("authorization_reloaded", path=str(self._path), rules=len(self._list.rules))
        return self._list


def _parsed(path: Path, text: str) -> AccessList:
    try:
        return parse(text)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", kind=error.kind, remedy=error.remedy) from error


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise _unusable(path, "others than its owner may write it", f"chmod go-w {path}")
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise _unusable(path, f"it is larger than {MAX_BYTES} bytes", "shorten it")
        return data.decode()
    except OSError as error:
        raise _unusable(
            path, error.strerror or str(error), "make the file readable for the daemon"
        ) from error
    except UnicodeDecodeError as error:
        raise _unusable(path, "it is not UTF-8 text", "write it as UTF-8") from error


def _unusable(path: Path, problem: str, remedy: str) -> UsageError:
    return UsageError(f"{path}: {problem}", kind="bad-authorization", remedy=remedy)
