"""Guest RAM made ready before a stream fills it: allocated, in huge pages where the kernel has them, and
entered in QEMU's page table.

Otherwise the thread that reads the stream takes a page fault for every 4 KiB, which costs it more than the
reading. Only time is saved: bytes that have arrived meanwhile stay as they are, and what cannot be done ahead
the kernel does when QEMU writes. Limit: huge pages need Linux 6.1, QEMU's page table CAP_SYS_PTRACE; one byte
in 64 KiB is read for that, and forgotten.

Source: process_vm_readv(2).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from korora.adapters.hypervisor import window
from korora.adapters.hypervisor.window import HUGE_BYTES
from korora.errors import ToolError

FAULT_AROUND_BYTES: Final = 64 * 2**10
"""A read fault enters so much, when it is in the page cache (mm/memory.c, do_fault_around)."""


@dataclass(frozen=True, slots=True)
class _Mapping:
    """Addresses in the process, and where in the file they begin."""

    start: int
    end: int
    offset: int


class _Piece(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("bytes", ctypes.c_size_t))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.process_vm_readv.restype = ctypes.c_ssize_t
_libc.process_vm_readv.argtypes = [
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_ulong,
]


def make_ready(pid: int, fd: int, size: int) -> None:
    """Allocate all of the memfd that this process maps, zeroed by the kernel, in the order of a stream.

    ToolError(kind="no-memory") leaves some allocated. Huge pages, and the page table, are given up at the
    first refusal: by a kernel that has none, by memory in too small pieces, by a process not ours to read.
    Once the process has ended, nothing more is allocated for it.
    """
    mappings = _mappings(pid, os.fstat(fd).st_ino)
    huge = entering = True
    with window.opened() as view:
        for offset, length in window.pieces(0, size):
            if not Path(f"/proc/{pid}").exists():
                return
            whole = length - length % HUGE_BYTES
            huge = huge and view.show(fd, offset, whole) and view.collapse(whole)
            _allocate(fd, offset, length, size)
            entering = entering and all(_enter(pid, part) for part in _parts(mappings, offset, length))


def _allocate(fd: int, offset: int, length: int, size: int) -> None:
    """What the huge pages left, small."""
    try:
        os.posix_fallocate(fd, offset, length)
    except OSError as error:
        raise ToolError(
            f"guest memory cannot be allocated beyond {offset} of {size} bytes: {error.strerror}",
            kind="no-memory",
            remedy="free memory on this host or raise the limit of its control group",
        ) from error


def _mappings(pid: int, inode: int) -> list[_Mapping]:
    """Of this file in that process, from proc_pid_maps(5)."""
    found = []
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        addresses, _, offset, _, number, *_ = line.split()
        if int(number) == inode:
            start, _, end = addresses.partition("-")
            found.append(_Mapping(int(start, 16), int(end, 16), int(offset, 16)))
    return found


def _parts(mappings: list[_Mapping], offset: int, length: int) -> Iterator[range]:
    """Addresses, one in each FAULT_AROUND_BYTES, at which a piece of the file is mapped."""
    for mapping in mappings:
        start = mapping.start + max(offset - mapping.offset, 0)
        end = min(mapping.end, mapping.start + offset + length - mapping.offset)
        if start < end:
            yield range(start, end, FAULT_AROUND_BYTES)


def _enter(pid: int, addresses: range) -> bool:
    """Make the kernel enter these into the page table of the process, by reading a byte at each."""
    here = ctypes.create_string_buffer(len(addresses))
    local = _Piece(ctypes.addressof(here), len(addresses))
    remote = (_Piece * len(addresses))(*[_Piece(address, 1) for address in addresses])
    read = _libc.process_vm_readv(pid, ctypes.byref(local), 1, remote, len(addresses), 0)
    return bool(read == len(addresses))
