"""The storage that takes a guest's writes while its disks move: whether it will do, and still does.

Promise: what the disks of all moves of one daemon may need of a file system is asked of it together, before
the first of a VM's disks is outsourced.
Limit: others write there, too. What runs full all the same stops the guest (QEMU's `werror=enospc`) until its
writes are folded back; nothing is lost.
"""

from __future__ import annotations

import glob
import os
import threading
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from korora.errors import RefusedError, ToolError

LOW_BYTES: Final = 64 << 20
"""A move is broken off with less than this left."""
_PART: Final = 16
"""Of a disk, that a guest is expected to write at most while it moves."""
_MOUNTS: Final = Path("/proc/self/mountinfo")
_VOLATILE: Final = frozenset({"tmpfs", "ramfs"})


def needed(sizes: Iterable[int]) -> int:
    """Bytes that must be free for disks of these sizes. All of a small disk may be written again."""
    return sum(min(size + size // 64 + (1 << 20), max(2 * LOW_BYTES, size // _PART)) for size in sizes)


@dataclass(frozen=True, slots=True)
class _Claim:
    folder: Path
    device: int
    bytes: int
    disks: int


class Claims:
    """Room that the VMs of one daemon may still need while they move; each is named by its own folder.
    Blocking."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claims: dict[Path, _Claim] = {}

    def refuse_unfit(self, vm: Path, folder: Path, sizes: Iterable[int], originals: Iterable[str]) -> None:
        """RefusedError: kind="replacement" where it is not there or forgets; "replacement-room" without room
        for disks of these sizes beside what others have claimed."""
        try:
            free, volatile = _free(folder), _is_volatile(folder)
            claimed = sum(_left(other, claim) for other, claim in self._others(vm, folder).items())
        except OSError as error:
            raise _refused(folder, error.strerror or str(error), "replacement") from error
        if volatile and not all(_is_volatile(Path(path)) for path in originals):
            raise _refused(folder, "it is in memory: what the guest has flushed would not outlive the host")
        wanted = needed(sizes)
        if free < wanted + claimed:
            words = f"it has room for {free >> 20} MiB, and {-(-wanted >> 20)} MiB may be needed"
            words += f", with {-(-claimed >> 20)} MiB by other VMs that move" if claimed else ""
            raise _refused(folder, words, "replacement-room")

    def claim(self, vm: Path, folder: Path, sizes: Collection[int], originals: Iterable[str]) -> None:
        """As `refuse_unfit`; then it is this VM's for all of these disks, until it is released."""
        with self._lock:
            if vm not in self._claims:
                self.refuse_unfit(vm, folder, sizes, originals)
                self._claims[vm] = _Claim(folder, folder.stat().st_dev, needed(sizes), len(sizes))

    def release(self, vm: Path) -> None:
        self._claims.pop(vm, None)

    def to_spare(self, vm: Path) -> int:
        """Bytes that one disk of this VM may take beyond what writes may need. All that move take half of
        what there is, for they are not alone there."""
        own = self._claims.get(vm)
        if own is None:
            return 0
        try:
            others = self._others(vm, own.folder)
            writes = 2 * own.bytes + sum(_left(other, claim) for other, claim in others.items())
            sharers = own.disks + sum(claim.disks for claim in others.values())
            return max(0, _free(own.folder) - writes) // (2 * sharers)
        except OSError:
            return 0

    def _others(self, vm: Path, folder: Path) -> dict[Path, _Claim]:
        device, claims = folder.stat().st_dev, self._claims.copy()
        return {other: claim for other, claim in claims.items() if other != vm and claim.device == device}


def refuse_low(folder: Path, sizes: Iterable[int]) -> None:
    """ToolError(kind="replacement-full") when it is time to break off."""
    try:
        left = _free(folder)
    except OSError:
        left = 0
    if left < min(LOW_BYTES, needed(sizes) // 2):
        raise ToolError(
            f"{folder}, where the guest writes while its disks move, has only {left >> 10} KiB left",
            kind="replacement-full",
            remedy="nothing was lost: what it wrote is folded back into its disks; make room there, name"
            " another folder with --replacement, or move with --storage-mode mirror",
        )


def _left(vm: Path, claim: _Claim) -> int:
    """What was claimed and is not written yet."""
    taken = 0
    for path in claim.folder.glob(f"korora-{glob.escape(vm.name)}-*.qcow2"):
        if not path.name.endswith(".cache.qcow2"):
            with suppress(OSError):
                taken += path.stat().st_blocks * 512
    return max(0, claim.bytes - taken)


def _free(folder: Path) -> int:
    told = os.statvfs(folder)
    return told.f_bavail * told.f_frsize


def _is_volatile(path: Path) -> bool:
    device = path.stat().st_dev
    here = f"{os.major(device)}:{os.minor(device)}"
    for line in _MOUNTS.read_text().splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[2] == here:
            return after.split()[0] in _VOLATILE
    return False


def _refused(folder: Path, reason: str, kind: str = "replacement") -> RefusedError:
    return RefusedError(
        f"the guest's writes cannot go to {folder} while its disks move: {reason}",
        kind=kind,
        remedy="name another folder with --replacement, or move with --storage-mode mirror",
    )
