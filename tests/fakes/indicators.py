"""A store of indicators in memory. Opened again is a new store over the same `Shelf`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from korora.model.indicator import Entry, Indicator, Kind, Provenance, Verdict, merged
from korora.ports.indicators import Written


@dataclass(slots=True)
class Shelf:
    said: dict[tuple[Kind, str], tuple[Provenance, ...]] = field(default_factory=dict)


class MemoryIndicators:
    """Implements `ports.indicators.IndicatorStore`."""

    def __init__(self, shelf: Shelf | None = None) -> None:
        self.shelf = shelf or Shelf()

    def write(self, batches: Iterable[Iterable[Entry]]) -> list[Written]:
        said, written = dict(self.shelf.said), []
        for batch in batches:
            new = total = 0
            for entry in batch:
                key = (entry.kind, entry.value)
                new, total = new + (key not in said), total + 1
                said[key] = merged([*said.get(key, ()), entry.provenance])
            written.append(Written(new, total - new))
        self.shelf.said = said
        return written

    def values(self, kind: Kind, now: int) -> list[bytes]:
        return [
            value.encode()
            for (of, value), said in self.shelf.said.items()
            if of is kind and any(_may_be_in_force(one, now) for one in said)
        ]

    def find(self, kind: Kind, value: str) -> Indicator | None:
        said = self.shelf.said.get((kind, value))
        return Indicator(kind, value, said) if said else None

    def listed(self, kind: Kind | None = None, containing: str = "") -> Iterator[Indicator]:
        for of, value in sorted(self.shelf.said):
            if kind in (None, of) and containing in value:
                yield Indicator(of, value, self.shelf.said[of, value])

    def counts(self) -> dict[Kind, int]:
        kinds = [kind for kind, _ in self.shelf.said]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds))}

    def close(self) -> None:
        pass


def _may_be_in_force(one: Provenance, now: int) -> bool:
    said = one.verdict is Verdict.MALICIOUS and not one.revoked
    return said and (one.valid_from or 0) <= now and (one.expires is None or now < one.expires)
