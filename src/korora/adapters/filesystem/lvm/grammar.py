"""The text in which LVM describes a volume group: sections of settings, as trees of Python's own values.

Promise: ValueError for what is not in this language, after bounded time and depth.
Source: LVM's own description of it, lvm.conf(5) and libdevmapper's configuration trees.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, TypeAlias

MAX_BYTES: Final = 16 << 20
MAX_DEPTH: Final = 8

Value: TypeAlias = "str | int | list[str | int]"
Section: TypeAlias = "dict[str, Value | Section]"

_TOKEN: Final = re.compile(
    rb'\s+|\#[^\n]*|(?P<text>"(?:[^"\\]|\\.)*")|(?P<number>-?[0-9]+(?![A-Za-z0-9_.+-]))'
    rb"|(?P<name>[A-Za-z0-9_.+-]+)|(?P<sign>[][{}=,])",
    re.DOTALL,
)
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)
_Token = tuple[str, bytes]
_END: Final[_Token] = ("end", b"")


def parsed(text: bytes) -> Section:
    """All of it. A name that comes twice in a section is none of the language."""
    if len(text) > MAX_BYTES:
        raise ValueError(f"its description is longer than {MAX_BYTES >> 20} MiB")
    return _Reading(_tokens(text)).section(0)


def _tokens(text: bytes) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"its description cannot be read from byte {at} on")
        at = found.end()
        if found.lastgroup is not None:
            yield found.lastgroup, found[0]
    yield _END


class _Reading:
    def __init__(self, tokens: Iterator[_Token]) -> None:
        self._tokens = tokens
        self._next = next(tokens)

    def section(self, depth: int) -> Section:
        """Up to the brace that ends it, or at depth 0 to the end of the text."""
        if depth > MAX_DEPTH:
            raise ValueError("its description is nested too deep")
        found: Section = {}
        end = ("sign", b"}") if depth else _END
        while (token := self._take()) != end:
            kind, word = token
            if kind not in {"name", "number", "text"}:
                raise self._unexpected(token)
            name = _text(word)
            if name in found:
                raise ValueError(f"its description has {name} twice")
            found[name] = self._of(depth)
        return found

    def _of(self, depth: int) -> Value | Section:
        token = self._take()
        if token == ("sign", b"{"):
            return self.section(depth + 1)
        if token != ("sign", b"="):
            raise self._unexpected(token)
        token = self._take()
        return self._list() if token == ("sign", b"[") else self._one(token)

    def _list(self) -> list[str | int]:
        found: list[str | int] = []
        token = self._take()
        while token != ("sign", b"]"):
            found.append(self._one(token))
            token = self._take()
            if token == ("sign", b","):
                token = self._take()
            elif token != ("sign", b"]"):
                raise self._unexpected(token)
        return found

    def _one(self, token: _Token) -> str | int:
        kind, word = token
        if kind == "number" and len(word) <= 20:
            return int(word)
        if kind in {"text", "name"}:
            return _text(word)
        raise self._unexpected(token)

    def _take(self) -> _Token:
        token = self._next
        if token != _END:
            self._next = next(self._tokens)
        return token

    def _unexpected(self, token: _Token) -> ValueError:
        return ValueError(f"its description has {token[1][:40]!r} where it cannot be")


def _text(word: bytes) -> str:
    if word.startswith(b'"'):
        word = _ESCAPED.sub(rb"\1", word[1:-1])
    return word.decode("utf-8", "backslashreplace")
