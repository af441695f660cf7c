"""Guest RAM as the memfd that QEMU maps: proved clean before a VM arrives, wiped after one has left (S7).

The daemon stays small whatever the guest's size. Limit: what LIMITS says.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from korora.adapters.hypervisor import prefault, window
from korora.adapters.hypervisor.process import start_ticks
from korora.errors import IntegrityError, ToolError
from korora.model.evidence import CleanMemoryProof, WipeStep

LIMITS = (
    "guest RAM only: firmware ROM, ACPI tables and video memory lie in other blocks of QEMU's memory",
    "QEMU's heap and, under TCG, its cache of translated code may hold fragments of guest data",
    "pages that the host's kernel wrote to swap before the wipe are not reached",
    "memory is overwritten once, through the kernel; remanence in the DRAM cells is not addressed",
)

_BACKEND = "/memfd:memory-backend-memfd"
_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02
_READ_BYTES = 2**20
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class BackendFile:
    """The RAM of one process, reached through /proc. Opened for each use: open, it would pin the RAM."""

    pid: int
    start_ticks: int
    descriptor: str
    size_bytes: int

    @classmethod
    def of(cls, pid: int, size_bytes: int) -> BackendFile | None:
        """The process's memfd of just this size, or None: another kind of backend, or not ours to open."""
        started = start_ticks(pid)
        if started is None:
            return None
        for entry in _descriptors(pid):
            if _is_backend(entry, size_bytes):
                return cls(pid, started, entry.name, size_bytes)
        return None

    def prove_clean(self) -> CleanMemoryProof:
        """No page of it was ever allocated: the kernel counts no blocks and finds no data."""
        with self._open() as fd:
            allocated = os.fstat(fd).st_blocks * 512
            clean = allocated == 0 and not any(_data_ranges(fd, self.size_bytes))
        return CleanMemoryProof(
            method="memfd: fstat counts no blocks; SEEK_DATA finds no data (ENXIO)",
            size_bytes=self.size_bytes,
            allocated_bytes=allocated,
            clean=clean,
        )

    def fault_in(self) -> None:
        """Allocate all pages, zeroed by the kernel. ToolError(kind="no-memory") leaves some allocated."""
        with self._open() as fd:
            prefault.make_ready(self.pid, fd, self.size_bytes)

    def wipe(self) -> WipeStep:
        """Zero what was ever written, read it back, give the pages back, and see that none is left.

        IntegrityError(kind="wipe-failed") when a byte survived; the VM must be stopped for good.
        """
        with self._open() as fd:
            ranges = list(_data_ranges(fd, self.size_bytes))
            _write_zeros(fd, ranges)
            _expect_zeros(fd, ranges)
            _punch(fd, self.size_bytes)
            left = os.fstat(fd).st_blocks * 512
            if left or any(_data_ranges(fd, self.size_bytes)):
                raise _survived(f"{left} bytes are still allocated")
        overwritten = sum(length for _, length in ranges)
        return WipeStep(
            what="guest memory",
            method="memfd: overwritten, verified by pread, FALLOC_FL_PUNCH_HOLE, no data left (ENXIO)",
            bytes=self.size_bytes,
            verified=True,
            note=f"{overwritten} bytes had been allocated and were overwritten; the rest never held data",
        )

    @contextmanager
    def _open(self) -> Iterator[int]:
        if start_ticks(self.pid) != self.start_ticks:
            raise ToolError(f"process {self.pid} and its memory are gone", kind="vm-process-gone")
        try:
            fd = os.open(f"/proc/{self.pid}/fd/{self.descriptor}", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise ToolError(
                f"the guest memory of process {self.pid} cannot be opened: {error.strerror}",
                kind="memory-unreachable",
                remedy="run the daemon as root",
            ) from error
        try:
            yield fd
        finally:
            os.close(fd)


def _descriptors(pid: int) -> list[Path]:
    try:
        return sorted(Path(f"/proc/{pid}/fd").iterdir(), key=lambda entry: int(entry.name))
    except OSError:
        return []


def _is_backend(entry: Path, size_bytes: int) -> bool:
    try:
        return str(entry.readlink()).startswith(_BACKEND) and entry.stat().st_size == size_bytes
    except OSError:
        return False


def _data_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of what is allocated, in order (lseek(2), SEEK_DATA)."""
    offset = 0
    while offset < size:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        offset = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, offset - start


def _write_zeros(fd: int, ranges: list[tuple[int, int]]) -> None:
    with window.opened() as view:
        for start, bytes_of_data in ranges:
            for offset, length in window.pieces(start, start + bytes_of_data):
                reached = view.zero(length) if view.show(fd, offset, length) else 0
                if reached != length:
                    raise _survived(f"{length - reached} bytes from {offset + reached} on are not zeroed")


def _expect_zeros(fd: int, ranges: list[tuple[int, int]]) -> None:
    zeros = bytes(_READ_BYTES)
    for start, bytes_of_data in ranges:
        for offset in range(start, start + bytes_of_data, _READ_BYTES):
            length = min(_READ_BYTES, start + bytes_of_data - offset)
            if os.pread(fd, length, offset) != zeros[:length]:  # bytes: a memoryview is compared one by one
                raise _survived(f"the {length} bytes at {offset} are not zero")


def _punch(fd: int, size: int) -> None:
    mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
    if _libc.fallocate(fd, mode, ctypes.c_int64(0), ctypes.c_int64(size)):
        code = ctypes.get_errno()
        raise ToolError(f"the pages cannot be given back: {os.strerror(code)}", kind="wipe-failed")


def _survived(what: str) -> IntegrityError:
    return IntegrityError(
        f"the guest memory is not wiped: {what}",
        kind="wipe-failed",
        remedy="something still writes to it: make sure that the VM is stopped, then wipe again",
    )
