"""A folder whose files are read and written as slowly as storage of so many requests and bytes a second.

    files in BACKING ── this process (FUSE) ── MOUNT: every read and write of anybody, past the kernel's cache

QEMU's `throttle` filter would stand in one QEMU's path alone: the daemons read a raw disk's file by
themselves, and what the kernel has cached comes to all as if nothing were slow. So the storage itself is slow
here: files are opened with FOPEN_DIRECT_IO, and each request waits as `throttle-group` lets it wait with
iops-total and bps-total (QEMU, util/throttle.c): two buckets that leak at these rates, in which a tenth of a
second's worth may stand before whoever comes waits. The kernel cuts what is asked for into at most 1 MiB.
Limits: first come, first served, reads and writes in one queue (QEMU has one for each); files that are there,
in one folder: they can be read, written, cut and removed; a flush costs nothing, holes are read as data.
Run: python -m bench.throttled_folder BACKING MOUNT IOPS BYTES_PER_S
It says READY, then once a second what every program did so far (JSON), and ends with its standard input.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import stat
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

READY: Final = b"ready"
MAX_BYTES: Final = 1 << 20
BURST_S: Final = 0.1
SMALL_BYTES: Final = 4096
_TELLS_EVERY_S: Final = 1.0
_KNOWN_S: Final = 1
"""What the kernel may know of a file without asking: QEMU's main loop would wait for each answer."""
_ROOT: Final = 1
# include/uapi/linux/fuse.h
_IN: Final = struct.Struct("=IIQQIIIHH")
_OUT: Final = struct.Struct("=IiQ")
_ATTR: Final = struct.Struct("=6Q10I")
_VERSION: Final = (7, 31)
_READ, _WRITE, _FORGET, _BATCH_FORGET = 15, 16, 2, 42
_SILENT: Final = {_FORGET, _BATCH_FORGET}
_FATTR_MODE, _FATTR_SIZE = 1, 8
_DIRECT, _PARALLEL_WRITES = 1, 1 << 6
_ASYNC_READ, _BIG_WRITES, _ASYNC_DIO, _MAX_PAGES = 1, 1 << 5, 1 << 15, 1 << 22
_MNT_DETACH: Final = 2


class Done(msgspec.Struct):
    """By one program, since the beginning. `small`: requests of at most SMALL_BYTES."""

    small_reads: int = 0
    read_bytes: int = 0
    small_writes: int = 0
    written_bytes: int = 0


class Throttle:
    """When a request may go, each in its turn. 0: as fast as it likes."""

    def __init__(self, iops: float, bytes_per_s: float) -> None:
        self._rates = (iops, bytes_per_s)
        self._levels = [0.0, 0.0]
        self._at = 0.0

    def due(self, now: float, size: int) -> float:
        """The time at which one of `size` bytes goes that comes `now`."""
        at = max(now, self._at)
        self._leak(at)
        waits = [
            (level - rate * BURST_S) / rate
            for level, rate in zip(self._levels, self._rates, strict=True)
            if rate
        ]
        at += max(0.0, *waits, 0.0)
        self._leak(at)
        self._levels[0] += 1
        self._levels[1] += size
        return at

    def _leak(self, at: float) -> None:
        passed, self._at = at - self._at, at
        self._levels = [
            max(0.0, level - rate * passed) for level, rate in zip(self._levels, self._rates, strict=True)
        ]


class Folder:
    """Answers the kernel at `device`, an open /dev/fuse."""

    def __init__(self, device: int, backing: Path, throttle: Throttle) -> None:
        self._device = device
        self._backing = backing
        self._throttle = throttle
        self._names: dict[int, str] = {}
        self._files: dict[int, int] = {}  # the kernel's handle is our descriptor
        self._waiting: deque[tuple[float, int, int, int, int, bytes]] = deque()
        self._room = bytearray(MAX_BYTES + 4096)
        self._answer = bytearray(MAX_BYTES)
        self._programs: dict[int, str] = {}
        self.done: dict[str, Done] = {}
        self._others: dict[int, Callable[[int, memoryview], bytes]] = {
            1: self._look_up,
            3: self._tell,
            4: self._change,
            10: self._remove,
            14: self._open,
            17: self._room_left,
            18: self._close,
            25: _nothing,  # FLUSH
            26: self._begin,
            27: lambda _, __: bytes(16),  # OPENDIR
            28: _nothing,  # READDIR: it looks empty
            29: _nothing,  # RELEASEDIR
        }

    @property
    def next_s(self) -> float | None:
        """When it has something to do again, by the monotonic clock."""
        return self._waiting[0][0] if self._waiting else None

    def take(self) -> bool:
        """One request of the kernel's; False when there is none just now. OSError once it is unmounted."""
        try:
            length = os.readv(self._device, [self._room])
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in {errno.EINTR, errno.ENOENT}:  # whoever asked was interrupted
                return True
            raise
        _, code, unique, node, _, _, pid, _, _ = _IN.unpack_from(self._room)
        body = memoryview(self._room)[_IN.size : length]
        if code in {_READ, _WRITE}:
            handle, offset, size = struct.unpack_from("=QQI", body)
            data = bytes(body[40 : 40 + size]) if code == _WRITE else b""
            self._note(pid, size, write=code == _WRITE)
            due = self._throttle.due(time.monotonic(), size)
            self._waiting.append((due, unique, handle, offset, size, data))
        elif code not in _SILENT:
            try:
                self._say(unique, self._others.get(code, _unknown)(node, body))
            except OSError as error:
                self._say(unique, b"", error.errno or errno.EIO)
        return True

    def go_on(self, now: float) -> None:
        """Read and write what is due."""
        while self._waiting and self._waiting[0][0] <= now:
            _, unique, handle, offset, size, data = self._waiting.popleft()
            try:
                if data:
                    self._say(unique, struct.pack("=II", os.pwrite(handle, data, offset), 0))
                else:
                    got = os.preadv(handle, [memoryview(self._answer)[:size]], offset)
                    self._say(unique, memoryview(self._answer)[:got])
            except OSError as error:
                self._say(unique, b"", error.errno or errno.EIO)

    def _say(self, unique: int, body: bytes | memoryview, error: int = 0) -> None:
        with suppress(FileNotFoundError):  # whoever asked is gone
            os.writev(self._device, [_OUT.pack(_OUT.size + len(body), -error, unique), body])

    def _begin(self, _: int, __: memoryview) -> bytes:
        flags = _ASYNC_READ | _BIG_WRITES | _ASYNC_DIO | _MAX_PAGES
        return struct.pack(
            "=4I2H2I2HI7I", *_VERSION, 0, flags, 64, 48, MAX_BYTES, 1, MAX_BYTES // 4096, *([0] * 9)
        )

    def _look_up(self, _: int, body: memoryview) -> bytes:
        path = self._backing / _name(body)
        told = path.stat()
        self._names[told.st_ino] = path.name
        return struct.pack("=4Q2I", told.st_ino, 0, 0, _KNOWN_S, 0, 0) + _attr(told)

    def _tell(self, node: int, _: memoryview) -> bytes:
        return struct.pack("=QII", _KNOWN_S, 0, 0) + _attr(self._path(node).stat())

    def _change(self, node: int, body: memoryview) -> bytes:
        valid, _, _, size = struct.unpack_from("=IIQQ", body)
        if valid & _FATTR_SIZE:
            os.truncate(self._path(node), size)
        if valid & _FATTR_MODE:
            self._path(node).chmod(struct.unpack_from("=I", body, 68)[0] & 0o7777)
        return self._tell(node, body)

    def _remove(self, _: int, body: memoryview) -> bytes:
        (self._backing / _name(body)).unlink()
        return b""

    def _open(self, node: int, body: memoryview) -> bytes:
        access = struct.unpack_from("=I", body)[0] & os.O_ACCMODE
        descriptor = os.open(self._path(node), access | os.O_CLOEXEC)
        return struct.pack("=QII", descriptor, _DIRECT | _PARALLEL_WRITES, 0)

    def _close(self, _: int, body: memoryview) -> bytes:
        os.close(struct.unpack_from("=Q", body)[0])
        return b""

    def _room_left(self, _: int, __: memoryview) -> bytes:
        free = os.statvfs(self._backing)
        counts = (free.f_blocks, free.f_bfree, free.f_bavail, free.f_files, free.f_ffree)
        return struct.pack("=5Q10I", *counts, free.f_bsize, 255, free.f_frsize, *([0] * 7))

    def _path(self, node: int) -> Path:
        return self._backing if node == _ROOT else self._backing / self._names[node]

    def _note(self, thread: int, size: int, *, write: bool) -> None:
        """By program: the kernel tells of a thread."""
        if thread not in self._programs:
            self._programs[thread] = _program(thread)
        done = self.done.setdefault(self._programs[thread], Done())
        if write:
            done.small_writes += size <= SMALL_BYTES
            done.written_bytes += size
        else:
            done.small_reads += size <= SMALL_BYTES
            done.read_bytes += size


def main(arguments: Sequence[str]) -> int:
    backing, place, iops, bytes_per_s = arguments
    device = os.open("/dev/fuse", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    _mount(place, device)
    try:
        _serve(Folder(device, Path(backing), Throttle(float(iops), float(bytes_per_s))), device)
    finally:
        _libc().umount2(os.fsencode(place), _MNT_DETACH)
    return 0


def _serve(folder: Folder, device: int) -> None:
    print(READY.decode(), flush=True)
    tells = time.monotonic() + _TELLS_EVERY_S
    while True:
        wakes = min(tells, folder.next_s or tells)
        ready, _, _ = select.select([device, 0], [], [], max(0.0, wakes - time.monotonic()))
        if 0 in ready and not os.read(0, 64):
            return
        if device in ready:
            try:
                folder.take()
            except OSError:  # unmounted by somebody else
                return
        now = time.monotonic()
        folder.go_on(now)
        if now >= tells:
            tells = now + _TELLS_EVERY_S
            sys.stdout.buffer.write(msgspec.json.encode(folder.done) + b"\n")
            sys.stdout.buffer.flush()


def _mount(place: str, device: int) -> None:
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other,max_read={MAX_BYTES}"
    words = [os.fsencode(word) for word in ("korora-throttled", place, "fuse")]
    libc = _libc()
    if libc.mount(*words, ctypes.c_ulong(0), options.encode()):
        number = ctypes.get_errno()
        raise OSError(number, f"cannot mount {place}: {os.strerror(number)}")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _attr(told: os.stat_result) -> bytes:
    times = [int(one) for one in (told.st_atime, told.st_mtime, told.st_ctime)]
    node = _ROOT if stat.S_ISDIR(told.st_mode) else told.st_ino
    owner = (told.st_uid, told.st_gid)
    return _ATTR.pack(
        node, told.st_size, told.st_blocks, *times, 0, 0, 0, told.st_mode, told.st_nlink, *owner, 0, 4096, 0
    )


def _name(body: memoryview) -> str:
    return os.fsdecode(bytes(body).partition(b"\0")[0])


def _nothing(_: int, __: memoryview) -> bytes:
    return b""


def _unknown(_: int, __: memoryview) -> bytes:
    raise OSError(errno.ENOSYS, "")


def _program(thread: int) -> str:
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{thread}/status").read_text().splitlines()
        process = next(line.split()[1] for line in lines if line.startswith("Tgid:"))
        return Path(f"/proc/{process}/comm").read_text().strip()
    return "?"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
