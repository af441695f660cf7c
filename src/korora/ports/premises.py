"""What the host's machine has that a VM needs, by looking."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from korora.model.evidence import WipeStep


class Premises(Protocol):
    """Never raises for what is not there: it is simply not in the answer.

    What is awaited looks at files, a few at a time, whoever asks: the rest waits for its turn.
    """

    async def file_digests(self, paths: Iterable[str]) -> dict[str, str]:
        """Path → "sha256:…" of each file that can be read and is not larger than anything that boots."""
        ...

    async def disk_sizes(self, paths: Iterable[str]) -> dict[str, int]:
        """Path → bytes of the file or block device, as the host sees it."""
        ...

    async def disk_usage(self, paths: Iterable[str]) -> dict[str, int]:
        """Path → bytes of the storage that it takes; of a sparse file fewer than its size."""
        ...

    async def room(self, folder: str) -> int:
        """Bytes that can still be written below this folder, or the nearest one above it that is there."""
        ...

    async def wipe_file(self, path: str) -> WipeStep:
        """Overwrite what is in it with zeros, and remove it. OSError when that fails; repeatable."""
        ...

    async def outside(self, read: Iterable[str], written: Iterable[str]) -> tuple[str, ...]:
        """Those that, links followed, no VM from elsewhere may read or write here. Nothing is opened."""
        ...

    def bridges(self) -> tuple[str, ...]: ...

    def memory_available_bytes(self) -> int: ...
