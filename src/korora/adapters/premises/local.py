"""This machine's files, disks, bridges and free memory, by looking. Changes nothing."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable
from io import BufferedReader
from pathlib import Path, PurePosixPath

from korora.policy.storage import StorageRule

_Version = tuple[int, int, int, int, int]  # device, inode, size, mtime, ctime
_GRAIN_NS = 2_000_000_000  # two writes closer than the file system's clock ticks would look like one


class LocalPremises:
    """Implements ports.premises.Premises."""

    def __init__(self, rule: StorageRule) -> None:
        self._rule = rule
        self._digests: dict[str, tuple[_Version, str]] = {}

    def file_digests(self, paths: Iterable[str]) -> dict[str, str]:
        """A file is read again only when it changed: a move waits for this, and kernels are large."""
        digests = {}
        for path in paths:
            try:
                digests[path] = self._digest(path)
            except OSError:
                continue
        return digests

    def disk_sizes(self, paths: Iterable[str]) -> dict[str, int]:
        sizes = {}
        for path in paths:
            try:
                with _opened(path, stat.S_ISREG, stat.S_ISBLK) as disk:
                    sizes[path] = disk.seek(0, 2)
            except OSError:
                continue
        return sizes

    def outside(self, read: Iterable[str], written: Iterable[str]) -> tuple[str, ...]:
        named = [*((path, False) for path in read), *((path, True) for path in written)]
        refused = (path for path, can_write in named if not self._rule.allows(_real(path), written=can_write))
        return tuple(dict.fromkeys(refused))

    def bridges(self) -> tuple[str, ...]:
        """Of the network namespace that this process is in."""
        return tuple(sorted(entry.parent.name for entry in Path("/sys/class/net").glob("*/bridge")))

    def memory_available_bytes(self) -> int:
        """MemAvailable: what can be had without swapping (proc(5))."""
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return 0

    def _digest(self, path: str) -> str:
        with _opened(path, stat.S_ISREG) as file:
            version = _version(os.fstat(file.fileno()))
            known = self._digests.get(path)
            if known is not None and known[0] == version:
                return known[1]
            digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
            if time.time_ns() - version[-1] > _GRAIN_NS:
                self._digests[path] = version, digest
            return digest


def _real(path: str) -> PurePosixPath:
    """Links followed, but for a device's own: where /dev/vg/lv leads changes, and only root made it."""
    folder, name = os.path.split(path)
    parent = PurePosixPath(os.path.realpath(folder))
    if name not in {"", ".", ".."} and parent.parts[:2] == ("/", "dev"):
        return parent / name
    return PurePosixPath(os.path.realpath(path))


def _opened(path: str, *kinds: Callable[[int], bool]) -> BufferedReader:
    """Open to read, without waiting: another host may have named the path. OSError for any other kind."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not any(is_kind(os.fstat(descriptor).st_mode) for is_kind in kinds):
            raise OSError(f"{path} is not of a kind that is read here")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _version(status: os.stat_result) -> _Version:
    """Every write moves ctime, which nobody can set back."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
