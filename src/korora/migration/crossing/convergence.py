"""How long the guest may be away for the last pages: little at first, more when it writes too fast for that.

QEMU pauses a guest as soon as what is left would cross within its downtime limit, at the rate of the last
100 ms; so a generous limit from the start makes every guest pay for it, also one that hardly writes.
Pure. Limit: a guest that writes faster than the link carries does not converge at any limit.
"""

from __future__ import annotations

from typing import Final

STRICT_MS: Final = 50


def downtime_allowed_ms(round_: int, limit_ms: int) -> int:
    """For a stream in this round (0 or 1 is the first pass over all memory). Doubles from the third on."""
    return min(limit_ms, STRICT_MS << max(0, round_ - 2))
