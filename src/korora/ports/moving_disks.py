"""Disks of one live VM on their way between two hosts."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from korora.model.image import NbdExport


@dataclass(frozen=True, slots=True)
class Copied:
    """How far the copying of all disks is, in bytes; `total` grows when the guest writes meanwhile."""

    done: int
    total: int
    ready: bool
    """Every disk was the same there once, and what the guest writes follows."""


class DiskThere(Protocol):
    """The same disk at the destination, to be written in parts. Blocking; each is called by one at a time.

    Several requests are under way at once, in no order: between two calls of `flush` no byte is written
    twice. ToolError as of a WritableImage; any of them may come with a later call, at last with `flush`.
    """

    def put(self, offset: int, data: bytes) -> None: ...

    def zero(self, offset: int, length: int) -> None: ...

    def flush(self) -> None: ...

    def leave(self) -> None:
        """Hang up, with all that was written on stable storage there."""
        ...


class MovingDisks(Protocol):
    """Made by `Machine.moving_disks`. Methods raise ToolError when the process is gone or refuses.

    On the source: `mirror` each disk, wait until they are `ready`, pause the VM, `cut`; or `reach` it, and
    write there what `written` tells. On the destination: `receive`, until the source has hung up. On both:
    `written` tells what to measure again; `end` in any case.
    """

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes that the guest sees of each disk, by name."""
        ...

    @property
    def socket(self) -> Path:
        """Where `receive` waits for connections, and what `written` gives out is served."""
        ...

    async def receive(self) -> None:
        """Destination, before the VM has ever run here: an NBD export of each name takes what comes."""
        ...

    async def mirror(self, name: str, socket: Path) -> None:
        """Source: copy it to the NBD export of its name behind this unix socket, and keep both the same."""
        ...

    async def reach(self, name: str, socket: Path) -> DiskThere:
        """Source, instead of `mirror`: the export of its name behind this socket. The hypervisor writes
        nothing to it."""
        ...

    async def copied(self) -> Copied:
        """Of those that are mirrored. ToolError(kind="mirror-failed") once the copying of one has failed; its
        VM runs on."""
        ...

    async def cut(self) -> None:
        """Source, with the VM paused and all `ready`: write the rest of what is mirrored there, and hang up
        with both the same.

        ToolError(kind="mirror-failed") if that cannot be said of one.
        """
        ...

    def written(self, name: str) -> AbstractAsyncContextManager[NbdExport]:
        """The disk as it is, for reading, while it may be written to; the first time, all of it.

        From the second time on its `bitmap` names what was written since the time before: everything whose
        reading then may have met an older content.
        """
        ...

    async def end(self) -> None:
        """Take everything out that was put in. Idempotent; the disks stay as they are."""
        ...
