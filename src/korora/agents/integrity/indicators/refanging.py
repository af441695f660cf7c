"""Undo what reports do to indicators so that nobody clicks them: `hxxp`, `[.]`, `(dot)` and their like."""

from __future__ import annotations

import re
from typing import Final

_DOT: Final = re.compile(
    r"\s*[\[({]\s*(?:\.|dot|punkt)\s*[\])}]\s*|\\\.|\[\.(?!\])|(?<!\[)\.\]", re.IGNORECASE
)
_COLON: Final = re.compile(r"\[\s*:\s*\]|\(:\)|\{:\}")
_SLASHES: Final = re.compile(r"\[\s*(:?//)\s*\]|\[/\]/?")
_AT: Final = re.compile(r"[\[({]\s*(?:@|at)\s*[\])}]", re.IGNORECASE)
_SCHEME: Final = re.compile(r"^(?:h(?:xx|XX|\*\*|tt|TT)p|h..p(?=s?\[?:))(s?)(?=\[?:|\s*:)", re.IGNORECASE)
_FTP: Final = re.compile(r"^f[x*]p(?=\[?:)", re.IGNORECASE)


def refanged(text: str) -> str:
    """The value as it was. What is not defanged is returned as it is, so doing it twice changes nothing."""
    plain = text.strip()
    if not any(mark in plain for mark in "[({\\") and plain[:1] not in "hHfF":
        return plain
    plain = _SLASHES.sub(lambda match: match[1] or "/", plain)
    plain = _AT.sub("@", _COLON.sub(":", plain))
    plain = _SCHEME.sub(lambda match: f"http{match[1].lower()}", plain)
    return _DOT.sub(".", _FTP.sub("ftp", plain))
