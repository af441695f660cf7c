"""What this host has already of disks that come to it (W4), as a move sees it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from korora.model.identity import VmName
from korora.ports.content_store import Pins


class Contents(Protocol):
    """Which tenant's a VM is, whoever asks, is this host's to say: see docs/STORE.md."""

    def shares(self, vm: VmName) -> bool:
        """Whether there may be anything for that VM. Blocking; False also where the storage fails."""
        ...

    def pins(self, vm: VmName) -> AbstractContextManager[Pins]:
        """To look up and hold what its disks may be made of; for one thread. ToolError(kind="store…")."""
        ...

    def learn(self, vm: VmName, disks: Sequence[Path]) -> None:
        """Name what these files hold, later, beside other work. They may be in use. Nothing is promised."""
        ...


class NoContents:
    """Of a host that has no store."""

    def shares(self, _: VmName) -> bool:
        return False

    def pins(self, vm: VmName) -> AbstractContextManager[Pins]:
        raise AssertionError(f"nobody asks for what is not shared with {vm}")

    def learn(self, vm: VmName, disks: Sequence[Path]) -> None:
        """It does not."""
