"""What only one daemon may hold: the state directory, by a lock; the API's address, by a socket.

Promise: both are given back by the kernel however the daemon ends; a stale socket is replaced, a live one
never. Limit: the lock is the kernel's on one machine; a state directory on a network file system is not
protected by it.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from korora.errors import RefusedError, ToolError, UsageError

_LOCK = "daemon.lock"
_UNIX_PATH_MAX_BYTES = 107


@contextmanager
def only_daemon(state: Path) -> Iterator[None]:
    """Hold the state directory (made private, 0700) for this process.

    RefusedError(kind="already-running") names the process that holds it.
    """
    descriptor = _opened_lock(state)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            raise RefusedError(
                f"another Korora daemon (process {holder or 'unknown'}) uses {state}",
                kind="already-running",
                remedy="stop that daemon first, or give this one another `state`",
            ) from problem
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)  # gives the lock back; the file stays, so that nobody locks a ghost


def listening_socket(path: Path, group: str = "") -> socket.socket:
    """A unix socket at `path`, for its owner only (0600), or a group as well (0660). A stale one is replaced.

    RefusedError(kind="already-running") when somebody answers there; UsageError when something else is there.
    """
    if len(os.fsencode(path)) > _UNIX_PATH_MAX_BYTES:
        raise UsageError(
            f"{path} is too long for a unix socket ({_UNIX_PATH_MAX_BYTES} bytes at most)",
            kind="bad-configuration",
            remedy="choose a shorter path for `api`",
        )
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _clear(path)
        listener = _bound(path)
    except OSError as problem:
        raise ToolError(
            f"cannot listen at {path}: {problem.strerror}",
            kind="api-socket",
            remedy="see that its directory is there and writable for the daemon",
        ) from problem
    if group:
        try:
            _open_to(path, group)
        except BaseException:
            listener.close()
            path.unlink(missing_ok=True)
            raise
    return listener


def _open_to(path: Path, group: str) -> None:
    try:
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
        path.chmod(0o660)
    except (KeyError, OSError) as problem:
        raise UsageError(
            f"the API's socket cannot be opened to the group {group!r}: {problem}",
            kind="bad-configuration",
            remedy=f"make the group (groupadd --system {group}), or correct `api_group`",
        ) from problem


def _opened_lock(state: Path) -> int:
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.chmod(0o700)
        # Not inherited by QEMU and swtpm, which outlive the daemon.
        return os.open(state / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as problem:
        raise ToolError(
            f"cannot use the state directory {state}: {problem.strerror}",
            kind="state-directory",
            remedy="run the daemon as root, on a disk that is writable and has room",
        ) from problem


def _clear(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise UsageError(
            f"{path} is there and is no socket",
            kind="bad-configuration",
            remedy="correct `api`, or move that file away",
        )
    if _answers(path):
        raise RefusedError(
            f"a daemon answers already at {path}",
            kind="already-running",
            remedy="stop that daemon first, or give this one another `api`",
        )
    path.unlink()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError as problem:
            # A full backlog or a slow one is somebody; only a refusal says that nobody listens.
            return problem.errno not in (errno.ECONNREFUSED, errno.ENOENT)
        return True


def _bound(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        # The mode is there from the first moment; a chmod afterwards would leave a gap.
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(128)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
