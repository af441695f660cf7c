"""Who else writes to the files of disks while they move: nobody may, for QEMU's bitmaps do not know of it.

The kernel says which process opens such a file, and which closes one that it could write to (fanotify(7)).
Promise: a process that could write to one of them between `watch` and `refuse` is told, however briefly; the
VM's own is not, and this one reads. Limit: on this host, and by this file: not what other hosts write to
shared storage, nor what goes to a device below it, nor who was handed an open file. Without root, or on a
kernel without fanotify, nothing is seen.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from korora.errors import ToolError

_CLOEXEC_NONBLOCK: Final = 0x1 | 0x2
_MARK_ADD: Final = 0x1
_CLOSE_WRITE: Final = 0x8
_OPEN: Final = 0x20
_OVERFLOW: Final = 0x4000
_AT_FDCWD: Final = -100
_EVENT: Final = struct.Struct("=IBBHQii")
_ROOM_BYTES: Final = 1 << 16
_PROC: Final = Path("/proc")

Identity = tuple[int, int]
"""Device and inode."""


class Intruders:
    """`own`: the process that may write. To be closed. Blocking, for as long as /proc takes."""

    def __init__(self, own: int) -> None:
        self._not_told = {own, os.getpid()}
        self._descriptor = -1
        self._disks: dict[Identity, tuple[str, Path]] = {}
        self._suspects: set[int] = set()

    def watch(self, disk: str, path: Path) -> None:
        """From here on; ToolError as `refuse` when somebody has it open. What is no file here is left out."""
        with suppress(OSError):
            identity = _identity(path)
            self._mark(path)
            self._disks[identity] = disk, path
        for pid, held in self._holding({int(one.name) for one in _PROC.iterdir() if one.name.isdigit()}):
            raise _written(held, pid)
        self.refuse()

    def refuse(self) -> None:
        """ToolError(kind="disk-written") once somebody else could have written to one of them."""
        if self._descriptor < 0:
            return
        for pid, disk in (*self._told(), *self._holding(self._suspects)):
            raise _written(disk, pid)
        for identity, (disk, path) in self._disks.items():
            if not _is(path, identity):
                raise _replaced(disk, path)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
        self._disks.clear()
        self._suspects.clear()

    def _mark(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if self._descriptor < 0:
            self._descriptor = _checked(
                libc.fanotify_init(_CLOEXEC_NONBLOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_LARGEFILE)
            )
        libc.fanotify_mark.argtypes = [
            *(ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p)
        ]
        wanted = (_MARK_ADD, _CLOSE_WRITE | _OPEN, _AT_FDCWD, os.fsencode(path))
        _checked(libc.fanotify_mark(self._descriptor, *wanted))

    def _told(self) -> Iterator[tuple[int, str]]:
        """Who closed one that it could write to; who opens one is suspected."""
        while True:
            try:
                told = os.read(self._descriptor, _ROOM_BYTES)
            except BlockingIOError:
                return
            for pid, mask, identity in list(_events(told)):
                if mask & _OVERFLOW:
                    yield pid, "of the VM"
                elif pid not in self._not_told:
                    self._suspects.add(pid)
                    if mask & _CLOSE_WRITE and identity in self._disks:
                        yield pid, self._disks[identity][0]

    def _holding(self, suspects: set[int]) -> Iterator[tuple[int, str]]:
        """Which of these processes has one open that it can write to."""
        for pid in list(suspects - self._not_told):
            held = [found for found in _open_for_writing(pid) if found in self._disks]
            if held:
                yield pid, self._disks[held[0]][0]
            elif not (_PROC / str(pid)).exists():
                self._suspects.discard(pid)


def _open_for_writing(pid: int) -> Iterator[Identity]:
    with suppress(OSError):
        for number in (_PROC / str(pid) / "fd").iterdir():
            with suppress(OSError):
                if number.lstat().st_mode & 0o200:
                    yield _identity(number)


def _identity(path: Path) -> Identity:
    """OSError when nothing is there."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _is(path: Path, identity: Identity) -> bool:
    with suppress(OSError):
        return _identity(path) == identity
    return False


def _events(told: bytes) -> Iterator[tuple[int, int, Identity]]:
    """(process, what it did, file); an overflow, where the kernel had no room, is of no file."""
    at = 0
    while at < len(told):
        length, _, _, _, mask, descriptor, pid = _EVENT.unpack_from(told, at)
        at += length
        if descriptor < 0:
            yield pid, mask, (0, 0)
            continue
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        yield pid, mask, (status.st_dev, status.st_ino)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _written(disk: str, pid: int) -> ToolError:
    try:
        who = f"{(_PROC / str(pid) / 'comm').read_text().strip()} (process {pid})"
    except OSError:
        who = f"a process that has ended ({pid})"
    return ToolError(
        f"{who} had the file of the disk {disk} open for writing while it moved: what it wrote may be missing"
        " at the destination",
        kind="disk-written",
        remedy="the VM runs on at the source, on the disk as it is now; see that nothing but its QEMU writes"
        " there, let the guest check its file systems, and move it again",
    )


def _replaced(disk: str, path: Path) -> ToolError:
    return ToolError(
        f"there is another file at {path} than when the disk {disk} began to move",
        kind="disk-written",
        remedy="the VM runs on at the source, on the file that it had opened; put that one back in its place",
    )
