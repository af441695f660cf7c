"""The equality comparisons of a STIX pattern, where these are all that it says.

Promise: what is returned is equivalent to the pattern: comparisons by `=` or `IN`, joined by OR alone.
Anything more (AND, NOT, FOLLOWEDBY, LIKE, MATCHES, qualifiers, …) is None, never a part of it taken for the
whole.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

MAX_CHARACTERS: Final = 1 << 16
VALIDATED_MAX: Final = 4096
_DEPTH: Final = 50
_TOKEN: Final = re.compile(
    r"\s*(?:(?P<string>'(?:[^'\\]|\\['\\])*')|(?P<word>(?:OR|IN)(?![\w:-]))"
    r"|(?P<path>[a-z0-9][a-zA-Z0-9_-]*:[a-zA-Z][\w-]*(?:\.[a-zA-Z][\w-]*|\.'[^'\\]*'|\[(?:\*|[0-9]{1,4})\])*)"
    r"|(?P<sign>[\[\]()=,]))"
)


class Comparison(NamedTuple):
    path: str
    value: str


class _MoreError(Exception):
    """The pattern says more than this module reads."""


def equalities(pattern: str) -> list[Comparison] | None:
    """The alternatives, or None when the pattern is something else, or none."""
    try:
        reading = _Reading(_tokens(pattern))
        found = reading.observations(0)
        return found if reading.ended() else None
    except _MoreError:
        return None


def problem(pattern: str) -> str | None:
    """What is wrong with it by the grammar of STIX 2.1, or None. For up to `VALIDATED_MAX` characters."""
    from stix2patterns.validator import run_validator

    try:
        errors = run_validator(pattern, stix_version="2.1")
    except Exception as error:  # whatever a grammar's runtime does with nonsense, it is nonsense
        return f"{type(error).__name__}: {error}"
    grammatical = [str(error) for error in errors if "Error found at" in str(error)]
    return grammatical[0].removeprefix("FAIL: ") if grammatical else None


def _tokens(pattern: str) -> list[tuple[str, str]]:
    if len(pattern) > MAX_CHARACTERS:
        raise _MoreError
    found, at, text = [], 0, pattern.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise _MoreError
        found.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return found


class _Reading:
    """Recursive descent, to a bounded depth."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._at = 0

    def ended(self) -> bool:
        return self._at == len(self._tokens)

    def observations(self, depth: int) -> list[Comparison]:
        found = self._observation(depth)
        while self._taken("OR"):
            found += self._observation(depth)
        return found

    def _observation(self, depth: int) -> list[Comparison]:
        if depth > _DEPTH:
            raise _MoreError
        if self._taken("("):
            found = self.observations(depth + 1)
            self._expect(")")
            return found
        self._expect("[")
        found = self._alternatives(depth)
        self._expect("]")
        return found

    def _alternatives(self, depth: int) -> list[Comparison]:
        found = self._comparison(depth)
        while self._taken("OR"):
            found += self._comparison(depth)
        return found

    def _comparison(self, depth: int) -> list[Comparison]:
        if depth > _DEPTH:
            raise _MoreError
        if self._taken("("):
            found = self._alternatives(depth + 1)
            self._expect(")")
            return found
        path = self._next("path")
        if self._taken("="):
            return [Comparison(path, self._string())]
        self._expect("IN")
        self._expect("(")
        values = [Comparison(path, self._string())]
        while self._taken(","):
            values.append(Comparison(path, self._string()))
        self._expect(")")
        return values

    def _string(self) -> str:
        return re.sub(r"\\(['\\])", r"\1", self._next("string")[1:-1])

    def _next(self, group: str) -> str:
        if self.ended() or self._tokens[self._at][0] != group:
            raise _MoreError
        self._at += 1
        return self._tokens[self._at - 1][1]

    def _taken(self, text: str) -> bool:
        if (
            self.ended()
            or self._tokens[self._at][0] not in ("word", "sign")
            or self._tokens[self._at][1] != text
        ):
            return False
        self._at += 1
        return True

    def _expect(self, text: str) -> None:
        if not self._taken(text):
            raise _MoreError
