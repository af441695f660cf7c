"""A piece of memory of ours as the log file of a running QEMU: bounded by the kernel, never waited for.

A file on disk would grow without end once nobody turns the trace off; a pipe would hold the guest up once
nobody reads it. So QEMU is given a memfd, sealed so that it cannot grow: a write fails at once when it is
full, and QEMU goes on. QEMU opens it for appending, which what cannot grow does not take: so the daemon takes
a second hold on QEMU's own open file (pidfd_getfd(2)), lets it write in place, and sets where.

Limit: needs what `held` needs. Until another log file is named QEMU keeps this one, and the memory that is in
it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from contextlib import suppress
from typing import Final

from korora.adapters.hypervisor.held import held_open, taken
from korora.adapters.hypervisor.qmp import Qmp
from korora.errors import RefusedError

BOUND_BYTES: Final = 8 << 20
PURPOSE: Final = "korora-trace"
"""How query-fdsets tells of it, for the moment in which QEMU has it as a descriptor."""
_PUNCH_AND_KEEP_SIZE: Final = 0x02 | 0x01
_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class TraceMemory:
    """Made by `opened`. `rewind`, let QEMU write, `text`."""

    def __init__(self, memory: int, writer: int) -> None:
        self._memory = memory
        self._writer = writer  # QEMU's own open file: its position is QEMU's

    @classmethod
    async def opened(cls, qmp: Qmp, pid: int, bound_bytes: int = BOUND_BYTES) -> TraceMemory:
        """As the log file of this QEMU. RefusedError(kind="not-sampled") where it cannot be bounded."""
        memory = os.memfd_create(PURPOSE, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            number, given = await qmp.give_descriptor(memory, PURPOSE)
            try:
                await _name_log(qmp, f"/proc/self/fd/{given}")
            finally:
                await qmp.execute("remove-fd", {"fdset-id": number})
            writer = _held(pid, os.fstat(memory))
            fcntl.fcntl(writer, fcntl.F_SETFL, fcntl.fcntl(writer, fcntl.F_GETFL) & ~os.O_APPEND)
            os.ftruncate(memory, bound_bytes)
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        except BaseException:
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)  # QEMU may have it as its log already
            os.close(memory)
            raise
        return cls(memory, writer)

    @property
    def bound_bytes(self) -> int:
        return os.fstat(self._memory).st_size

    @property
    def used_bytes(self) -> int:
        return os.lseek(self._writer, 0, os.SEEK_CUR)

    def rewind(self) -> None:
        """Forget what was written, and give its memory back."""
        os.lseek(self._writer, 0, os.SEEK_SET)
        _libc.fallocate(self._memory, _PUNCH_AND_KEEP_SIZE, 0, self.bound_bytes)

    def text(self) -> bytes:
        """What was written since `rewind`."""
        return os.pread(self._memory, self.used_bytes, 0)

    def close(self) -> None:
        self.rewind()
        os.close(self._writer)
        os.close(self._memory)


async def _name_log(qmp: Qmp, path: str) -> None:
    said = await qmp.execute("human-monitor-command", {"command-line": f"logfile {path}"})
    if said.strip():
        raise _refused(f"QEMU takes no log file: {said.strip()}")


def _held(pid: int, wanted: os.stat_result) -> int:
    """QEMU's own descriptor, open for writing alone, of the file that is wanted."""
    try:
        with held_open(pid) as pidfd:
            for entry in os.scandir(f"/proc/{pid}/fd"):
                with suppress(FileNotFoundError):  # it was closed meanwhile
                    if _same(entry.stat(), wanted):
                        held = taken(pidfd, int(entry.name))
                        flags = fcntl.fcntl(held, fcntl.F_GETFL)
                        if _same(os.fstat(held), wanted) and flags & os.O_ACCMODE == os.O_WRONLY:
                            return held
                        os.close(held)
    except OSError as error:
        raise _refused(f"its descriptors cannot be reached: {error.strerror}") from error
    raise _refused("it did not open the log file that it was given")


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _refused(reason: str) -> RefusedError:
    return RefusedError(
        f"what this VM reads and writes cannot be watched: {reason}",
        kind="not-sampled",
        remedy="the daemon must run as root, or as the account of the VM's QEMU with CAP_SYS_PTRACE",
    )
