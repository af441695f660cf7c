"""Content that this host has already, found by name, so that it need not be sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from korora.model.stored import Added, Collected, Found, Located, Origin, Scope, Stat, TenantName, Verified


class Pins(Protocol):
    """One session's hold on verified bytes, in memory. Bounded by the room that it was given."""

    def pin(self, names: Sequence[bytes]) -> list[bool]:
        """Which of these parts are held now: each was read, and has this very name.

        Looks in the tenant's own scope, then in what is shared, and nowhere else. False also where there is
        no room for more, or the storage fails. Pinned twice, it is held until it was released twice.
        """
        ...

    def content(self, name: bytes) -> bytes:
        """KeyError when it is not held."""
        ...

    def release(self, names: Iterable[bytes]) -> None:
        """No error for what is not held."""
        ...

    def found(self) -> list[Found]:
        """What was dropped on the way since this was last asked."""
        ...


class ContentStore(Protocol):
    """Methods raise ToolError(kind="store…") when the storage fails; what was there before stays usable."""

    def refer(self, scope: Scope, path: Path, parts: Iterable[Located], *, learnt: bool = False) -> Added:
        """Parts of a file of this host, of which no copy is kept. Replaces what was said of that file before.

        What is `learnt` and nobody added takes and displaces no more than `policy.displacing` gives it.
        UsageError(kind="no-image") when it is no file and no disk.
        """
        ...

    def keep(self, scope: Scope, path: Path, chunks: Iterable[bytes | bytearray | memoryview]) -> Added:
        """Own copies of chunks of at most 1 MiB, and entries for their units. Zeros are passed over.

        `path`: what they are called. Replaces what was kept under that name before.
        """
        ...

    def pins(self, tenant: TenantName | None, room: int) -> AbstractContextManager[Pins]:
        """To look up and hold at most `room` bytes. Without a tenant only what is shared is found."""
        ...

    def stat(self) -> list[Stat]:
        """Every scope that there is."""
        ...

    def origins(self, scope: Scope) -> list[Origin]:
        """Those used last come first."""
        ...

    def verify(self, scope: Scope) -> Verified:
        """Read all of it, and drop what is not what it should be."""
        ...

    def collect(self, scope: Scope) -> Collected:
        """Take away what no entry needs, and the least recently used beyond the bounds. Readers go on."""
        ...

    def forget(self, scope: Scope, number: int) -> bool:
        """That origin; False when there is none."""
        ...

    def close(self) -> None: ...
