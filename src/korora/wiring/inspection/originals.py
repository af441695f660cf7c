"""Originals of what is flagged, kept as bags in the order's output, within the site's bounds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from korora.adapters.flags import bag
from korora.model.flag import FlagId, FlagKind, Original, Place
from korora.model.identity import sha256
from korora.model.inspection import CHECK_OF
from korora.policy.inspection import FLAGGING
from korora.ports.inspector import Order

TOTAL_BYTES: Final = 32 << 20
"""Of all originals of one inspection: they go with the VM."""


@dataclass(slots=True)
class Originals:
    order: Order
    room: int = TOTAL_BYTES

    def wants(self, kind: FlagKind) -> bool:
        """Whether findings of this kind are flagged: what is only reported has no flag to link it from."""
        return self.order.checks[CHECK_OF[kind]] in FLAGGING and not self.order.baseline

    def holds(self, size: int) -> bool:
        """Whether so many bytes of one are kept, as far as there is room."""
        return size <= self.order.original_bytes

    def kept(
        self, flag: FlagId, kind: FlagKind, place: Place, reason: str, content: bytes | None
    ) -> Original:
        """Where it is, or why it is nowhere but in its place."""
        if not self.wants(kind):
            return Original()
        if content is None:
            return Original(left="nothing of it could be read")
        if len(content) > min(self.order.original_bytes, self.room):
            return Original(left=f"it has {len(content)} bytes, more than is kept")
        self.room -= len(content)
        packed = bag.written(bag.Bag(flag, self.order.vm, kind, place, reason, content))
        (Path(self.order.output) / f"original-{flag}.tar").write_bytes(packed)
        return Original(digest=sha256(content), size=len(content))
