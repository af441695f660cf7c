"""Bags with the originals of flags, for whoever reads one."""

from __future__ import annotations

from korora.adapters.flags import bag


def original_in(packed: bytes) -> bytes:
    """The original, once all digests of the bag were compared. IntegrityError(kind="bad-bag")."""
    return bag.opened(packed)["data/original"]
