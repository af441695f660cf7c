"""Dates as the sources write them, as Unix seconds. What is no date is None: a missing date is never
guessed."""

from __future__ import annotations

from datetime import UTC, datetime

_MIN, _MAX = 0, 253402300799  # 1970 to 9999


def moment(text: object) -> int | None:
    """RFC 3339, "2026-11-26 20:26:52", "2026-11-26" (UTC where no zone is said), or Unix seconds."""
    if isinstance(text, bool):
        return None
    if isinstance(text, int):
        return text if _MIN <= text <= _MAX else None
    if not isinstance(text, str) or not 4 <= len(text) <= 40:
        return None
    plain = text.strip().removesuffix(" UTC")
    if plain.isascii() and plain.isdigit():
        return int(plain) if len(plain) <= 12 and int(plain) <= _MAX else None
    try:
        read = datetime.fromisoformat(plain)
        seconds = int((read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return None
    return seconds if _MIN <= seconds <= _MAX else None
