"""A piece of the daemon's address space through which it reaches the guest's RAM, a few MiB at a time.

Promise: the daemon stays small whatever the guest's size, and never touches what is mapped itself: the kernel
does, and says what fails. A touch of memory that QEMU has cut off, or that cannot be allocated, would be a
signal that ends the daemon.

Source: madvise(2), MADV_COLLAPSE and MADV_POPULATE_READ; zero(4).
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from korora.errors import ToolError

HUGE_BYTES: Final = 2 * 2**20
WINDOW_BYTES: Final = 16 * 2**20

_MAP_FIXED: Final = 0x10
_MADV_POPULATE_READ: Final = 22
_MADV_COLLAPSE: Final = 25
_FAILED: Final = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int64,
]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


@dataclass(frozen=True, slots=True)
class Window:
    """WINDOW_BYTES from `address`, a multiple of HUGE_BYTES. Nothing is there before `show`."""

    address: int

    def show(self, fd: int, offset: int, length: int) -> bool:
        """Map this piece of the file, writable, in place of what was shown before. False: it cannot be."""
        access, how = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | _MAP_FIXED
        return bool(_libc.mmap(self.address, length, access, how, fd, offset) != _FAILED)

    def collapse(self, length: int) -> bool:
        """Allocate what is shown, zeroed, in huge pages. False at the kernel's first refusal."""
        for huge in range(self.address, self.address + length, HUGE_BYTES):
            # The page table must know one small page, that can be collapsed into the huge one around it.
            if _libc.madvise(huge, mmap.PAGESIZE, _MADV_POPULATE_READ):
                return False
        return not _libc.madvise(self.address, length, _MADV_COLLAPSE)

    def zero(self, length: int) -> int:
        """Overwrite what is shown; returns how many bytes it reached, fewer than asked at a failure.

        Twice to three times as fast as write(2) of zeros, which goes page by page through the file.
        """
        _libc.madvise(self.address, length, _MADV_POPULATE_READ)  # many at once, not one by one
        with open("/dev/zero", "rb", buffering=0) as zeros:  # noqa: PTH123  a device, and unbuffered
            try:
                return zeros.readinto((ctypes.c_char * length).from_address(self.address)) or 0
            except OSError:
                return 0


@contextmanager
def opened() -> Iterator[Window]:
    """ToolError(kind="no-memory") without address space. What is mapped into it is unmapped with it."""
    reserved = WINDOW_BYTES + HUGE_BYTES
    base = _libc.mmap(None, reserved, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if base == _FAILED:
        raise ToolError("there is no address space to reach guest memory through", kind="no-memory")
    try:
        yield Window((base + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1))
    finally:
        _libc.munmap(base, reserved)


def pieces(start: int, end: int) -> Iterator[tuple[int, int]]:
    """(offset, length), each at most a window, from `start` until `end`."""
    for offset in range(start, end, WINDOW_BYTES):
        yield offset, min(WINDOW_BYTES, end - offset)
