"""Set up and use the two kinds of socket of a relay: TCP to the other host, unix to the hypervisor.

Promise: every wait ends. Deadlines are the kernel's own (SO_RCVTIMEO, SO_SNDTIMEO, TCP_USER_TIMEOUT), so the
fast path costs one system call per frame and no poll.
Limit: Linux. A deadline may be overrun once, by the call that was under way when it passed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from typing import Final

from korora.errors import KororaError, PeerError, ToolError

UNIX_BUFFER_BYTES: Final = 4 << 20
_SO_SNDBUFFORCE: Final = 32  # socket(7); not in the socket module
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class Closed(Exception):  # noqa: N818  a state, seen by this package alone
    """The bytes ended. Whether that is a failure, the caller knows."""


def prepare_tcp(connection: socket.socket, stall_deadline_s: float) -> None:
    """Frames leave at once; a peer that acknowledges nothing for the deadline is given up by the kernel.

    Buffer sizes stay with the kernel's autotuning, which a fixed size would switch off.
    """
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, int(stall_deadline_s * 1000)))
    _set_deadline(connection, socket.SO_RCVTIMEO, stall_deadline_s)
    _set_deadline(connection, socket.SO_SNDTIMEO, stall_deadline_s)


def prepare_unix(connection: socket.socket, stall_deadline_s: float) -> None:
    """Writing fails after the stall deadline. Reading has none: a hypervisor may be silent."""
    connection.settimeout(None)
    _set_deadline(connection, socket.SO_SNDTIMEO, stall_deadline_s)
    try:
        connection.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, UNIX_BUFFER_BYTES)
    except PermissionError:  # without CAP_NET_ADMIN the kernel's limit holds: slower, not wrong
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNIX_BUFFER_BYTES)


def send_whole(connection: socket.socket, data: memoryview, deadline_s: float) -> None:
    """Write everything, or raise BlockingIOError when the deadline passes with bytes left."""
    sent = connection.send(data)
    if sent == len(data):
        return
    give_up_at = time.monotonic() + deadline_s
    while sent < len(data):
        if time.monotonic() > give_up_at:
            raise BlockingIOError(f"{len(data) - sent} bytes left after the deadline")
        sent += connection.send(data[sent:])


def receive_whole(connection: socket.socket, space: memoryview, deadline_s: float) -> None:
    """Fill `space`. Closed at the end of the bytes; BlockingIOError when the deadline passes first."""
    got = connection.recv_into(space, 0, socket.MSG_WAITALL)
    if got == len(space):
        return
    give_up_at = time.monotonic() + deadline_s
    while got < len(space):
        more = connection.recv_into(space[got:], 0, socket.MSG_WAITALL)
        if not more:
            raise Closed
        if time.monotonic() > give_up_at:
            raise BlockingIOError(f"{len(space) - got} bytes missing after the deadline")
        got += more


def cut(connection: socket.socket) -> None:
    """Wake whoever waits on it, in any thread, and tell the other end by a reset. The caller closes later."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def peer_failure(failed: Exception, deadline_s: float) -> KororaError:
    """What a failed call on the TCP connection says about the other host."""
    match failed:
        case BlockingIOError() | TimeoutError():
            return PeerError(
                f"the other host was silent for {deadline_s:g} s",
                kind="stalled",
                remedy="see that the other host runs and that the network between the two carries traffic",
            )
        case Closed():
            return PeerError(
                "the connection ended before the stream did",
                kind="truncated",
                remedy="look into the other host's log for its reason, then try again",
            )
        case _:
            return PeerError(
                f"the data connection was lost: {_reason(failed)}",
                kind="connection-lost",
                remedy="look into the other host's log for its reason, then try again",
            )


def hypervisor_failure(failed: Exception) -> KororaError:
    """What a failed call on the unix connection says about this host's hypervisor."""
    if isinstance(failed, BlockingIOError):
        return ToolError(
            "the hypervisor takes no bytes",
            kind="stalled",
            remedy="look into the hypervisor's log on this host",
        )
    return ToolError(
        f"the hypervisor closed its migration socket: {_reason(failed)}",
        kind="hypervisor-closed",
        remedy="look into the hypervisor's log on this host",
    )


def _reason(failed: Exception) -> str:
    if isinstance(failed, OSError) and failed.errno:
        return os.strerror(failed.errno)
    return str(failed) or type(failed).__name__


def _set_deadline(connection: socket.socket, option: int, seconds: float) -> None:
    whole = int(seconds)
    microseconds = int((seconds - whole) * 1_000_000)
    connection.setsockopt(
        socket.SOL_SOCKET, option, struct.pack("ll", whole, microseconds if whole else max(1, microseconds))
    )
