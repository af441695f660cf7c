"""A second hold on another process's open file (pidfd_getfd(2)): what is set on one is set on both.

Limit: needs what ptrace(2) asks for (PTRACE_MODE_ATTACH), which root and, mostly, the same account have.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_PIDFD_GETFD: Final = 438
_libc: Final = ctypes.CDLL(None, use_errno=True)


@contextmanager
def held_open(pid: int) -> Iterator[int]:
    """A pidfd. OSError when the process is gone."""
    pidfd = os.pidfd_open(pid)
    try:
        yield pidfd
    finally:
        os.close(pidfd)


def taken(pidfd: int, number: int) -> int:
    """A descriptor of our own for that process's; to be closed. OSError as of pidfd_getfd(2)."""
    held: int = _libc.syscall(_PIDFD_GETFD, pidfd, number, 0)
    if held < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    os.set_inheritable(held, False)
    return held
