"""Where indicators are kept: many, from many sources, merged by value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from korora.model.indicator import Entry, Indicator, Kind


@dataclass(frozen=True, slots=True)
class Written:
    """Of one batch: how many values were not known before, and how many entries fell to values that were."""

    new: int
    merged: int


class IndicatorStore(Protocol):
    """Methods raise ToolError(kind="indicator-store…") when the storage fails; nothing is kept then."""

    def write(self, batches: Iterable[Iterable[Entry]]) -> list[Written]:
        """Keep all of it or, whatever is raised meanwhile, nothing. Durable when it returns.

        Of two entries of one source with one reference and value the one of the greater
        `model.indicator.rank` is kept.
        """
        ...

    def values(self, kind: Kind, now: int) -> list[bytes]:
        """The values that may be in force at `now`, in no order: whoever finds one asks all its sources."""
        ...

    def find(self, kind: Kind, value: str) -> Indicator | None: ...

    def listed(self, kind: Kind | None = None, containing: str = "") -> Iterator[Indicator]:
        """All whose value has this text in it, by kind and value."""
        ...

    def counts(self) -> dict[Kind, int]:
        """How many values there are of each kind that there is."""
        ...

    def close(self) -> None: ...
