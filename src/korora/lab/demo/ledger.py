"""What was shown, next to what should have been: the table at the end of the demonstration. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_NARROW = 60


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was shown."""

    step: str
    expected: str
    seen: str
    good: bool


@dataclass(slots=True)
class Ledger:
    entries: list[Entry] = field(default_factory=list)

    def enter(self, step: str, expected: str, seen: str, *, good: bool) -> bool:
        """Write it down; returns `good`."""
        self.entries.append(Entry(step, expected, seen, good))
        return good

    @property
    def all_good(self) -> bool:
        """Whether something was shown, and all of it went as it must."""
        return bool(self.entries) and all(entry.good for entry in self.entries)

    def lines(self, width: int) -> Iterator[str]:
        """The table, wrapped to `width` columns (at least 60)."""
        rows = [(entry.step, entry.expected, entry.seen, mark(entry.good)) for entry in self.entries]
        yield from table((("STEP", "EXPECTED", "SEEN", ""), *rows), max(width, _NARROW))


def mark(good: bool) -> str:
    return "✓" if good else "✗"


def table(rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Left-aligned columns, two spaces apart; what is too wide for its share goes on in the next line."""
    widths = shares([max(map(len, column)) for column in zip(*rows, strict=True)], width)
    for row in rows:
        cells = [textwrap.wrap(cell, share) or [""] for cell, share in zip(row, widths, strict=True)]
        for number in range(max(map(len, cells))):
            parts = [cell[number] if number < len(cell) else "" for cell in cells]
            line = "  ".join(part.ljust(share) for part, share in zip(parts, widths, strict=True))
            yield line.rstrip()


def shares(wanted: Sequence[int], width: int) -> list[int]:
    """How wide each column may be: as wide as it wants, or the widest give way until all fit."""
    given = [max(1, want) for want in wanted]
    spare = width - 2 * (len(given) - 1)
    while sum(given) > spare and max(given) > 1:
        widest = max(range(len(given)), key=lambda column: given[column])
        given[widest] -= 1
    return given
