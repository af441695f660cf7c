"""This machine's files, disks, bridges and free memory, by looking. Changes nothing."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import TypeVar

from korora.adapters.premises.wiping import wiped
from korora.model.evidence import WipeStep
from korora.policy.storage import StorageRule

_Version = tuple[int, int, int, int, int]  # device, inode, size, mtime, ctime
_T = TypeVar("_T")
_A = TypeVar("_A")

LOOKS_AT_ONCE = 2
"""Threads of their own: however many hosts ask, the TPM and the disks never wait for a free thread."""
LARGEST_BYTES = 4 * 2**30  # no hypervisor loads a larger kernel, initrd or firmware below 4 GiB
_GRAIN_NS = 2_000_000_000  # two writes closer than the file system's clock ticks would look like one


class LocalPremises:
    """Implements ports.premises.Premises."""

    def __init__(self, rule: StorageRule) -> None:
        self._rule = rule
        self._digests: dict[tuple[int, int], tuple[_Version, str]] = {}  # by file, however it is named
        self._threads = ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="premises")

    async def file_digests(self, paths: Iterable[str]) -> dict[str, str]:
        """A file is read again only when it changed: a move waits for this, and kernels are large."""
        return await self._look(self._file_digests, tuple(paths))

    async def disk_sizes(self, paths: Iterable[str]) -> dict[str, int]:
        return await self._look(_disk_sizes, tuple(paths))

    async def disk_usage(self, paths: Iterable[str]) -> dict[str, int]:
        return await self._look(_disk_usage, tuple(paths))

    async def room(self, folder: str) -> int:
        return await self._look(_room, folder)

    async def wipe_file(self, path: str) -> WipeStep:
        return await asyncio.to_thread(wiped, Path(path))

    async def outside(self, read: Iterable[str], written: Iterable[str]) -> tuple[str, ...]:
        named = [*((path, False) for path in read), *((path, True) for path in written)]
        return await self._look(self._outside, named)

    async def _look(self, look: Callable[[_A], _T], at: _A) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, look, at)

    def _file_digests(self, paths: tuple[str, ...]) -> dict[str, str]:
        digests = {}
        for path in paths:
            try:
                digests[path] = self._digest(path)
            except OSError:
                continue
        return digests

    def _outside(self, named: list[tuple[str, bool]]) -> tuple[str, ...]:
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
            status = os.fstat(file.fileno())
            if status.st_size > LARGEST_BYTES:
                raise OSError(f"{path} is larger than anything that boots")
            version = _version(status)
            known = self._digests.get(version[:2])
            if known is not None and known[0] == version:
                return known[1]
            digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
            if time.time_ns() - version[-1] > _GRAIN_NS:
                self._digests[version[:2]] = version, digest
            return digest


def _disk_sizes(paths: tuple[str, ...]) -> dict[str, int]:
    sizes = {}
    for path in paths:
        try:
            with _opened(path, stat.S_ISREG, stat.S_ISBLK) as disk:
                sizes[path] = disk.seek(0, 2)
        except OSError:
            continue
    return sizes


def _disk_usage(paths: tuple[str, ...]) -> dict[str, int]:
    usage = {}
    for path in paths:
        try:
            with _opened(path, stat.S_ISREG, stat.S_ISBLK) as disk:
                status = os.fstat(disk.fileno())
                usage[path] = disk.seek(0, 2) if stat.S_ISBLK(status.st_mode) else status.st_blocks * 512
        except OSError:
            continue
    return usage


def _room(folder: str) -> int:
    place = next(one for one in (Path(folder), *Path(folder).parents) if one.is_dir())
    told = os.statvfs(place)
    return told.f_bavail * told.f_frsize


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
