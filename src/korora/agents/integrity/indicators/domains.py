"""Domain names in one spelling, and which of them name too much. Reads no network; the list of suffixes is
installed.

Promise: a name is compared by its A-labels, in lower case, without the dot at its end.
Limit: what counts as a public suffix is as old as the installed list (`publicsuffixlist`).
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Final

import idna

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

_MAX: Final = 253
_ASCII: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
_NUMERIC: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_TEXT_MAX: Final = 1024


def a_label(text: str) -> str | None:
    """The name in canonical spelling, or None when it is no domain name."""
    name = text.strip().rstrip(".")
    if not name or len(name) > _TEXT_MAX:
        return None
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True, transitional=False, std3_rules=False).decode()
        except (idna.IDNAError, UnicodeError, ValueError, IndexError):
            return None
    name = name.lower()
    if len(name) > _MAX or not _ASCII.fullmatch(name) or _NUMERIC.fullmatch(name):
        return None
    return name


def names_too_much(name: str) -> str | None:
    """Why this canonical name is no indicator: everybody's domains would match. None when it can be one."""
    if "." not in name:
        return f"{name} is a single label: as an indicator it would name a whole top-level domain"
    if _suffixes().publicsuffix(name) == name:
        return f"{name} is a public suffix, below which anybody registers names"
    return None


@cache
def _suffixes() -> PublicSuffixList:
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList()
