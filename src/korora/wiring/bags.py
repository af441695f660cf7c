"""Bags with the originals of flags, for whoever reads one."""

from __future__ import annotations

from korora.adapters.flags import bag
from korora.model.flag import FlagId


def original_in(packed: bytes, flag: FlagId) -> bytes:
    """The original of this flag, once all digests were compared. IntegrityError(kind="bad-bag")."""
    return bag.opened(packed, flag)["data/original"]
