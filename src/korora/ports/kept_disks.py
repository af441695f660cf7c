"""Contents of disks that stay on a host when their VM has left, for its return (W2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from korora.model.evidence import WipeStep
from korora.model.identity import VmName
from korora.model.kept import KeptDisk


class KeptDisks(Protocol):
    """At most one content of each disk of a VM. None is ever run; none is believed: it is measured first."""

    def all(self) -> Sequence[KeptDisk]:
        """By VM and disk."""
        ...

    def of(self, vm: VmName, disk: str) -> tuple[KeptDisk, Path] | None:
        """With the image."""
        ...

    async def keep(self, kept: KeptDisk, path: Path) -> None:
        """Move the image here from where the VM had it. OSError when that cannot be done: it is where it was.

        Repeatable: one that is here, and there no more, is kept. What was kept of it before is wiped.
        """
        ...

    async def take(self, vm: VmName, disk: str, path: Path) -> None:
        """Move the image to where the VM will have it, where nothing is. OSError: it is still kept."""
        ...

    async def put_back(self, vm: VmName, disk: str, path: Path) -> None:
        """Undo `take`, if the image is still there, whatever was written to it meanwhile."""
        ...

    async def drop(self, vm: VmName, disk: str | None = None) -> Sequence[WipeStep]:
        """Wipe all that is kept of this VM, or of this disk. OSError when one cannot be wiped: it is still
        kept. What is taken meanwhile is not wiped.
        """
        ...

    async def finish(self) -> Sequence[WipeStep]:
        """Wipe what a crash left half wiped. OSError as of `drop`."""
        ...
