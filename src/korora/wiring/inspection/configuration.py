"""Configuration files beside the VM's definition (E1). Limit: no reader for them yet, which is told."""

from __future__ import annotations

from korora.model.flag import FlagKind, Place
from korora.model.inspection import Check, Found
from korora.ports.inspector import Order
from korora.wiring.inspection.gathering import Gathering


def look(order: Order, gathering: Gathering, *, keep: bool) -> None:
    if not gathering.wants(Check.CONFIGURATION):
        return
    gathering.looked(
        Check.CONFIGURATION, unknown=len(order.configuration), words="files that the policy names"
    )
    for file in order.configuration:
        found = Found(kind=FlagKind.UNREAD, place=Place(file=file), reason="this version cannot read it")
        gathering.finds(found)
