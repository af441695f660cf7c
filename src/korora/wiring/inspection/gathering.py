"""What one inspection gathers: counts by check, findings within a bound, originals within another."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import msgspec

from korora.model.flag import FlagKind, Original
from korora.model.inspection import (
    CHECK_OF,
    Check,
    ConfigurationFacts,
    DiskFacts,
    Disposition,
    Examined,
    Found,
    Looked,
)
from korora.ports.inspector import Order

FOUND_MAX: Final = 2000
"""Of each kind. How many there were beside is counted."""
REASON_MAX: Final = 1000


@dataclass(slots=True)
class Gathering:
    """Grows while one VM is looked into."""

    order: Order
    disks: list[DiskFacts] = field(default_factory=list)
    configuration: list[ConfigurationFacts] = field(default_factory=list)
    found: dict[FlagKind, list[Found]] = field(default_factory=dict)
    dropped: Counter[FlagKind] = field(default_factory=Counter)
    _examined: Counter[Check] = field(default_factory=Counter)
    _unknown: Counter[Check] = field(default_factory=Counter)
    _words: dict[Check, str] = field(default_factory=dict)

    def wants(self, *checks: Check) -> bool:
        """Whether any of them is asked for."""
        return any(self.order.checks[check] is not Disposition.OFF for check in checks)

    def looked(self, check: Check, examined: int = 0, unknown: int = 0, words: str = "") -> None:
        if self.wants(check):
            self._examined[check] += examined
            self._unknown[check] += unknown
            self._words[check] = words[:REASON_MAX] or self._words.get(check, "")

    def words_of(self, check: Check) -> str:
        return self._words.get(check, "")

    def finds(self, one: Found) -> None:
        """Once each; what nobody asked for is left out."""
        if not self.wants(CHECK_OF[one.kind]):
            return
        kept = self.found.setdefault(one.kind, [])
        if len(kept) >= FOUND_MAX:
            self.dropped[one.kind] += 1
            return
        kept.append(msgspec.structs.replace(one, reason=one.reason[:REASON_MAX]))

    def with_original(self, one: Found, original: Original) -> None:
        """Where the original of a finding is, learned later."""
        kept = self.found.get(one.kind, [])
        kept[:] = [
            msgspec.structs.replace(seen, original=original)
            if (seen.place, seen.content) == (one.place, one.content)
            else seen
            for seen in kept
        ]

    def examined(self) -> Examined:
        unread = len(self.found.get(FlagKind.UNREAD, ())) + self.dropped[FlagKind.UNREAD]
        self.looked(Check.UNKNOWN, examined=0, unknown=unread)
        looked = tuple(
            Looked(
                check=check,
                examined=self._examined[check],
                unknown=self._unknown[check],
                words=self._words.get(check, ""),
            )
            for check in Check
            if check in self._words
        )
        found = tuple(one for kind in FlagKind for one in self.found.get(kind, ()))
        return Examined(
            looked=looked,
            disks=tuple(self.disks),
            configuration=tuple(self.configuration),
            found=found,
            dropped=dict(self.dropped),
        )
