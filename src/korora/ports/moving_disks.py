"""Disks of one live VM on their way between two hosts."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from korora.errors import ToolError
from korora.model.image import NbdExport


@dataclass(frozen=True, slots=True)
class Copied:
    """How far the copying of all disks is, in bytes; `total` grows when the guest writes meanwhile."""

    done: int
    total: int
    ready: bool
    """Every disk was the same there once, and what the guest writes follows."""
    read: Mapping[str, int] = field(default_factory=dict)
    """By disk: so many bytes of it were read, from its beginning on, and perhaps more."""


class CopyFailedError(ToolError):
    """A disk was not copied (kind="mirror-failed"); its VM runs on. `near`: bytes that had been copied."""

    def __init__(self, disk: str, reason: str, near: int = 0) -> None:
        super().__init__(
            f"the disk {disk} was not copied to the other host: {reason}",
            kind="mirror-failed",
            remedy="see that there is room for it at the destination, that both disks can be read and"
            " written, and that the network holds; the disk here is as the guest left it",
        )
        self.disk, self.near = disk, near


NOT_TAKEN: Final = frozenset({"unwritable", "image-full"})
"""Kinds of what the methods of a DiskThere raise when its storage takes something no more."""


class DiskThere(Protocol):
    """The same disk at the destination, to be written in parts. Blocking; each is called by one at a time.

    Several requests are under way at once, in no order: between two calls of `flush` no byte is written
    twice. ToolError as of a WritableImage; any of them may come with a later call, at last with `flush`.
    """

    def put(self, offset: int, data: bytes) -> None: ...

    def zero(self, offset: int, length: int) -> None: ...

    def drain(self) -> None:
        """All that was written so far is there for whoever reads it, though a crash may lose it."""
        ...

    def flush(self) -> None: ...

    def leave(self) -> None:
        """Hang up, with all that was written on stable storage there."""
        ...


class DiskHere(DiskThere, Protocol):
    """A disk of this host that arrives, to be written by this host, too."""

    def read(self, offset: int, length: int) -> bytes:
        """What is there, once it was drained. ToolError."""
        ...


@dataclass(frozen=True, slots=True)
class Load:
    """What a guest has asked of its disks, and how long these requests took altogether. `starved_s`: how long
    the threads that serve it were ready and had no CPU, altogether."""

    requests: int
    waited_s: float
    starved_s: float = 0.0

    def __add__(self, more: Load) -> Load:
        return Load(
            self.requests + more.requests, self.waited_s + more.waited_s, self.starved_s + more.starved_s
        )

    def __sub__(self, before: Load) -> Load:
        return Load(
            self.requests - before.requests,
            self.waited_s - before.waited_s,
            self.starved_s - before.starved_s,
        )


class MovingDisks(Protocol):
    """Made by `Machine.moving_disks`. Methods raise ToolError when the process is gone or refuses.

    On the source: `mirror` each disk, or `reach` it and write there what `written` tells, or what is `frozen`
    once it is outsourced; wait until those that are mirrored are `ready`, pause the VM, `cut`, `stand_by`.
    On the destination: `receive`, until the source has hung up; `fill` meanwhile. On both: `written` tells
    what to measure again; `end` in any case.
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

    async def fill(self, name: str) -> DiskHere:
        """Destination, once it receives: that disk, to be written to beside what comes."""
        ...

    async def mirror(self, name: str, socket: Path, cap_bytes_per_s: int = 0) -> None:
        """Source: copy it to the NBD export of its name behind this unix socket, and keep both the same.

        With a cap it is read with little under way at a time, and no faster until all of it was read once.
        """
        ...

    async def load(self) -> Load:
        """Since the hypervisor began to count; nothing for disks at rest."""
        ...

    def shown(self, name: str) -> AbstractAsyncContextManager[NbdExport]:
        """Source: the disk, for reading, while the guest writes to it."""
        ...

    def refuse_unfit(self, folder: Path) -> None:
        """Blocking. RefusedError as of `outsource`, for a folder that would not do for it."""
        ...

    async def outsource(self, name: str, folder: Path) -> None:
        """Source: the guest's writes go to a new file in `folder` until `end`, and its disk is frozen.

        The first `written` tells what was written since. Whoever finds the VM without its hypervisor has all
        that it flushed folded back before it starts. RefusedError for a folder that will not do
        (kind="replacement", "replacement-room"); then, and on failure, the VM runs on, and `end` folds back.
        """
        ...

    def frozen(self, name: str) -> AbstractAsyncContextManager[NbdExport]:
        """Source, once it is outsourced: what the disk held at that moment."""
        ...

    def nearer(self, name: str) -> AbstractAsyncContextManager[NbdExport]:
        """The same; and what is read here, nobody reads from the disk itself again: it lies beside what the
        guest writes. To be read in whole pieces of 64 KiB, but for the end of the disk.
        """
        ...

    def room_nearer(self, name: str) -> int:
        """Bytes that may be brought nearer: what is there beyond what the guest's writes may need."""
        ...

    async def reach(self, name: str, socket: Path) -> DiskThere:
        """Source, instead of `mirror`: the export of its name behind this socket. The hypervisor writes
        nothing to it."""
        ...

    async def copied(self) -> Copied:
        """Of those that are mirrored. CopyFailedError once the copying of one has failed;
        ToolError(kind="replacement-full") once there is too little room for what the guest writes; its VM
        runs on. Asked now and then until `cut`.
        """
        ...

    async def cut(self) -> None:
        """Source, with the VM paused and all `ready`: write the rest of what is mirrored there, and hang up
        with both the same.

        CopyFailedError if that cannot be said of one.
        """
        ...

    def written(self, name: str) -> AbstractAsyncContextManager[NbdExport]:
        """The disk as it is, for reading, while it may be written to; the first time, all of it.

        From the second time on its `bitmap` names what was written since the time before: everything whose
        reading then may have met an older content.
        """
        ...

    async def stand_by(self) -> None:
        """Source, after `cut`, once all was measured: nothing is served any more. What was outsourced is so
        until `end`. ToolError: kind="disk-written" when another process could have written to one meanwhile,
        "disk-changed" when it is not the disk that began to move; `copied` and `written` say so earlier.
        """
        ...

    async def end(self) -> None:
        """Take everything out that was put in. Idempotent; the disks are as the guest left them.

        ToolError(kind="not-folded-back") when what was outsourced cannot be written to its disk: the VM runs
        on with both, and it is tried again when it is found by `attach`, or starts.
        """
        ...
