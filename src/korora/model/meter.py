"""Turn raw readings into progress that never runs backwards, with an ETA that admits what it does not know.

Pure: the caller brings the readings and the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from korora.model.progress import Phase, Progress

# Where each phase begins and ends on the bar. Only the transfer takes long, so it gets most of it.
SPANS: Final[dict[Phase, tuple[float, float]]] = {
    Phase.REQUEST: (0.0, 0.01),
    Phase.AUTHORIZE: (0.01, 0.02),
    Phase.ATTEST: (0.02, 0.04),
    Phase.AGREE: (0.04, 0.06),
    Phase.BASELINE: (0.06, 0.10),
    Phase.TRANSFER: (0.10, 0.90),
    Phase.SWITCHOVER: (0.90, 0.93),
    Phase.VERIFY: (0.93, 0.95),
    Phase.COMMIT: (0.95, 0.97),
    Phase.WIPE: (0.97, 0.99),
    Phase.RECEIPT: (0.99, 1.0),
}
_SMOOTHING: Final = 0.4


@dataclass(frozen=True, slots=True)
class Reading:
    """What the hypervisor says at one moment. Bytes and bytes per second; `at` in monotonic seconds."""

    at: float
    sent_bytes: int
    remaining_bytes: int
    dirty_rate_bytes_per_s: float
    round: int


@dataclass(frozen=True, slots=True)
class Meter:
    """The state between two readings: `meter, progress = meter.at_transfer(reading)`."""

    fraction: float = 0.0
    rate_bytes_per_s: float = 0.0
    last: Reading | None = None

    def at_phase(self, phase: Phase, note: str = "") -> tuple[Meter, Progress]:
        """A phase begins."""
        fraction = max(self.fraction, SPANS[phase][0])
        sent = self.last.sent_bytes if self.last else 0
        moved = Meter(fraction, self.rate_bytes_per_s, self.last)
        return moved, Progress(phase, fraction, bytes_sent=sent, note=note)

    def at_transfer(self, reading: Reading) -> tuple[Meter, Progress]:
        """One reading of the hypervisor's stream."""
        rate = self._rate(reading)
        start, end = SPANS[Phase.TRANSFER]
        whole = reading.sent_bytes + reading.remaining_bytes
        share = reading.sent_bytes / whole if whole else 0.0
        fraction = max(self.fraction, start + share * (end - start))
        low, high = eta_range(reading.remaining_bytes, rate, reading.dirty_rate_bytes_per_s)
        progress = Progress(
            Phase.TRANSFER,
            fraction,
            bytes_sent=reading.sent_bytes,
            bytes_remaining=reading.remaining_bytes,
            rate_bytes_per_s=rate,
            dirty_rate_bytes_per_s=reading.dirty_rate_bytes_per_s,
            eta_low_s=low,
            eta_high_s=high,
            round=reading.round,
            note=convergence_note(reading, rate),
        )
        return Meter(fraction, rate, reading), progress

    def _rate(self, reading: Reading) -> float:
        if self.last is None or reading.at <= self.last.at:
            return self.rate_bytes_per_s
        now = max(0, reading.sent_bytes - self.last.sent_bytes) / (reading.at - self.last.at)
        if not self.rate_bytes_per_s:
            return now
        return self.rate_bytes_per_s + _SMOOTHING * (now - self.rate_bytes_per_s)


def eta_range(remaining_bytes: int, rate: float, dirty_rate: float) -> tuple[float | None, float | None]:
    """Seconds: at best nothing is dirtied any more; at worst it goes on as now (None: never ends)."""
    if rate <= 0:
        return None, None
    low = remaining_bytes / rate
    return low, remaining_bytes / (rate - dirty_rate) if rate > dirty_rate else None


def convergence_note(reading: Reading, rate: float) -> str:
    """Say why a transfer does not end, in the words of the person who waits for it."""
    if reading.round > 3 and rate > 0 and reading.dirty_rate_bytes_per_s >= rate:
        return "the guest dirties memory faster than the link carries it: it may not converge"
    return ""
