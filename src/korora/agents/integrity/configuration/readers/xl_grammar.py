"""The language of xl's configuration files: names, numbers, strings, lists. Nothing is evaluated.

Promise: the grammar is xl's, which looks like Python's and is not: names in lower case, no operators but `=`
and `+=`, no nesting but of lists. What is not in it is told by its line, and reading goes on with the next
line, as in xl. Linear in the text's length; lists lie at most eight deep.

Source: Xen, tools/libs/util: libxlu_cfg_l.l and libxlu_cfg_y.y, and the escapes in libxlu_cfg.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

MAX_DEPTH: Final = 8
_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\r]+)
      | (?P<newline>(?:\#[^\n]*(?:\n|$)|\n)(?:[ \t\r]*(?:\#[^\n]*(?:\n|$)|\n))*)
      | (?P<name>[a-z][_0-9a-z]*)
      | (?P<number>[0-9][0-9a-fx]*)
      | (?P<string>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")
      | (?P<sign>\+=|[=\[\],;])""",
    re.VERBOSE,
)
_ESCAPE: Final = re.compile(r"\\(?:x([0-9a-fA-F]{2})|([0-7]{1,3})|(.))", re.DOTALL)
_ESCAPED: Final = dict(zip("abfnrtv\"'\\", "\a\b\f\n\r\t\v\"'\\", strict=True))


@dataclass(frozen=True, slots=True)
class Atom:
    """`number`: as written, 0x10 or 16; a string that looks like one is a string."""

    text: str
    number: bool = False


Value: TypeAlias = "Atom | list[Value]"


@dataclass(frozen=True, slots=True)
class Assignment:
    """`adds`: written with `+=`."""

    line: int
    name: str
    value: Value
    adds: bool = False


@dataclass(frozen=True, slots=True)
class Broken:
    """A line that is not in the language."""

    line: int
    text: str
    why: str


class _NotXlError(Exception):
    pass


class _Token(NamedTuple):
    """Made for each of perhaps millions."""

    kind: str
    text: str
    line: int


def statements(text: str) -> Iterator[Assignment | Broken]:
    """In the order of the file."""
    return _Parsing(text).statements()


class _Parsing:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._next: _Token | None = None
        self._begin = 0  # of the token that was read last

    def statements(self) -> Iterator[Assignment | Broken]:
        while True:
            line, start = self._line, self._at
            try:
                token = self._take()
                line = token.line
                if token.kind == "end":
                    return
                if token.kind == "newline" or token.text == ";":
                    continue
                yield self._assignment(token)
            except _NotXlError as error:
                end = self._skip_line(start)
                yield Broken(line, self._text[start:end].strip(" \t\r\n;"), str(error))

    def _assignment(self, name: _Token) -> Assignment:
        if name.kind != "name":
            raise _NotXlError(f"a setting cannot begin with {name.text[:40]!r}")
        sign = self._take()
        if sign.text not in {"=", "+="} or sign.kind != "sign":
            raise _NotXlError("there is no = after the name")
        value = self._value(self._take(), 0)
        end = self._peek()
        if not (end.kind in {"newline", "end"} or (end.kind == "sign" and end.text == ";")):
            raise _NotXlError("there is more after the value")
        return Assignment(name.line, name.text, value, adds=sign.text == "+=")

    def _value(self, token: _Token, depth: int) -> Value:
        if token.kind == "number":
            return Atom(token.text, number=True)
        if token.kind == "string":
            return Atom(_unquoted(token.text))
        if token.kind == "sign" and token.text == "[":
            if depth >= MAX_DEPTH:
                raise _NotXlError(f"lists lie more than {MAX_DEPTH} deep")
            return self._list(depth + 1)
        raise _NotXlError(
            "there is no value" if token.kind in {"newline", "end"} else "its value is none of xl's"
        )

    def _list(self, depth: int) -> list[Value]:
        values: list[Value] = []
        while True:
            token = self._past_newlines()
            if token.kind == "sign" and token.text == "]":
                return values
            values.append(self._value(token, depth))
            token = self._past_newlines()
            if token.kind == "sign" and token.text == "]":
                return values
            if not (token.kind == "sign" and token.text == ","):
                raise _NotXlError("a list is not closed")

    def _past_newlines(self) -> _Token:
        while (token := self._take()).kind == "newline":
            pass
        return token

    def _peek(self) -> _Token:
        if self._next is None:
            self._next = self._read()
        return self._next

    def _take(self) -> _Token:
        token, self._next = self._peek(), None
        return token

    def _read(self) -> _Token:
        while self._at < len(self._text):
            match = _TOKEN.match(self._text, self._at)
            if match is None:
                raise _NotXlError(f"{self._text[self._at]!r} is not in xl's language")
            line, self._begin, kind = self._line, self._at, str(match.lastgroup)
            self._at = match.end()
            if kind == "newline":  # no other token has one in it
                self._line += match[0].count("\n")
            if kind != "space":
                return _Token(kind, match[0], line)
        return _Token("end", "", self._line)

    def _skip_line(self, start: int) -> int:
        """To the end of the line where it went wrong, and past `start` in any case; where its text ends."""
        ended = self._next is not None and self._next.kind == "newline"
        self._next = None
        if ended or (self._at > start and self._text[self._at - 1] == "\n"):
            return self._begin
        end = self._text.find("\n", self._at)
        self._at = len(self._text) if end < 0 else end + 1
        self._line += 0 if end < 0 else 1
        return self._at


def _unquoted(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        if match[1] or match[2]:
            return chr(int(match[1], 16) if match[1] else int(match[2], 8))
        if match[3] not in _ESCAPED:
            raise _NotXlError(f"\\{match[3]} is no escape of xl's")
        return _ESCAPED[match[3]]

    return _ESCAPE.sub(plain, text[1:-1])
