"""Where a migration is, as its watchers see it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """The story, in order. `migration/phases.py` is its table of contents."""

    REQUEST = "request"
    AUTHORIZE = "authorize"
    ATTEST = "attest"
    AGREE = "agree"
    BASELINE = "baseline"
    TRANSFER = "transfer"
    SWITCHOVER = "switchover"
    VERIFY = "verify"
    COMMIT = "commit"
    WIPE = "wipe"
    RECEIPT = "receipt"


@dataclass(frozen=True, slots=True)
class Progress:
    """One reading. `fraction` never decreases within a migration; the ETA is a range in seconds."""

    phase: Phase
    fraction: float
    bytes_sent: int = 0
    bytes_remaining: int = 0
    rate_bytes_per_s: float = 0.0
    dirty_rate_bytes_per_s: float = 0.0
    eta_low_s: float | None = None
    eta_high_s: float | None = None
    round: int = 0
    note: str = ""
