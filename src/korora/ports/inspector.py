"""Looking into a VM's disks and configuration: one order, one answer, in a process that may fail alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from korora.model.image import Layer
from korora.model.inspection import Check, Compared, Disposition, Examined

Told = Callable[[str], None]
"""How far it is, in words."""


class DiskSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A disk's file in its declared format, and the images beneath it, as its VM's definition says.

    `running`: its VM has it open; then its content is the NBD `export` at a unix `socket`, and `opened` what
    QEMU says that it has open. Without a socket the VM has no such disk; without a path its definition has
    none.
    """

    name: str
    format: str
    path: str = ""
    backing: tuple[Layer, ...] = ()
    running: bool = False
    socket: str = ""
    export: str = ""
    opened: tuple[Layer, ...] = ()


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to look at, by absolute paths. `output`: an empty folder for the baseline and the originals;
    `baseline`: a folder with those of an earlier inspection, to hold the VM against; "" for none.
    """

    vm: str
    checks: Mapping[Check, Disposition]
    disks: tuple[DiskSource, ...]
    configuration: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    output: str
    baseline: str = ""
    engines: str = ""
    indicators: str = ""
    original_bytes: int = 4 << 20
    within_s: float = 6 * 3600.0


class Inspector(Protocol):
    async def inspect(self, order: Order, told: Told) -> Examined:
        """Look, and leave baseline and originals in `order.output` (names: docs/INSPECTION.md).

        What cannot be looked at is a finding of kind *unread*. ToolError(kind="inspection") when it does not
        come to an end, or not within `order.within_s`. Cancelled, nothing of it runs on.
        """
        ...

    async def compare(self, order: Order, told: Told) -> Compared:
        """As `inspect`, held against `order.baseline`; leaves nothing in `order.output`."""
        ...
