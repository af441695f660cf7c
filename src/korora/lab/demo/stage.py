"""Show the story: headings, sentences, commands as typed, and facts. Colours only on a terminal.

Promise: every line fits the terminal, or 100 columns where there is none. Limit: decides nothing.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TextIO

from korora.lab.demo.ledger import mark, table

_WIDEST = 110
_INDENT = "  "
_BOLD, _DIM, _RED, _GREEN, _CYAN, _PLAIN = "1", "2", "31", "32", "36", "0"


class Stage:
    """Where the story is told. `coloured` by default where a person looks and has not asked otherwise."""

    def __init__(self, out: TextIO | None = None, *, width: int | None = None, coloured: bool | None = None):
        self._out = out or sys.stdout
        self._terminal = self._out.isatty()
        self.width = width or min(
            _WIDEST, shutil.get_terminal_size((100, 24)).columns if self._terminal else 100
        )
        self._coloured = self._wants_colour() if coloured is None else coloured

    def title(self, text: str) -> None:
        for line in self._wrapped(text, self.width):
            self._line(self._paint(_BOLD, line))

    def heading(self, number: int, text: str) -> None:
        words = f"━━ {number} · {text} "
        self._line()
        self._line(self._paint(_BOLD, words + "━" * max(0, self.width - len(words))))

    def say(self, text: str) -> None:
        """A sentence or two about what comes, or what was seen."""
        self.plain(self._wrapped(text, self.width))

    def command(self, line: str) -> None:
        """A command as it is about to run."""
        self._line()
        self._line(self._paint(_CYAN, f"$ {line}"))

    def facts(self, pairs: Iterable[tuple[str, object]]) -> None:
        """Name and value, indented."""
        self.columns([(name, str(value)) for name, value in pairs])

    def columns(self, rows: Sequence[Sequence[str]]) -> None:
        for line in table(rows, self.width - len(_INDENT)):
            self._line(_INDENT + line)

    def verdict(self, text: str, *, good: bool) -> None:
        """One line with its mark: did it go as it must?"""
        colour = _GREEN if good else _RED
        for number, line in enumerate(self._wrapped(text, self.width - 2)):
            self._line(f"{self._paint(colour, mark(good))} {line}" if number == 0 else _INDENT + line)

    def plain(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._line(line)

    def gap(self) -> None:
        self._line()

    def _wrapped(self, text: str, width: int) -> list[str]:
        """Long words stay whole: a path that is cut in two cannot be copied."""
        return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)

    def _line(self, text: str = "") -> None:
        print(text, file=self._out, flush=True)

    def _paint(self, colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[{_PLAIN}m" if self._coloured else text

    def _wants_colour(self) -> bool:
        return self._terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
