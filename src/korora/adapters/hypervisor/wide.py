"""Connections to this host's data plane, with room in the socket for whole chunks.

What fits between a sender and its reader is decided by the sender's buffer, and the usual one cuts a chunk
into small parts: many wakeups and frames for the same bytes.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from korora.adapters.hypervisor.held import held_open, taken
from korora.adapters.hypervisor.qmp import connect_once

_SEND_BUFFER_BYTES: Final = 4 << 20
_SO_SNDBUFFORCE: Final = 32  # socket(7); not in the socket module


def connect_wide(path: Path) -> socket.socket:
    """OSError as connect(2) gives it. Without CAP_NET_ADMIN the kernel's limit holds: slower, not wrong."""
    connection = connect_once(path)
    _widen(connection)
    return connection


def widen(pid: int, name: str) -> bool:
    """Give the room to a connection that this process has made itself, to a socket that was bound to `name`;
    whether there is one. Blocking.

    False as well where its descriptors cannot be reached: slower, not wrong.
    """
    found = False
    with suppress(OSError), held_open(pid) as pidfd:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # it was closed meanwhile, or leads nowhere
                if str(entry.readlink()).startswith("socket:"):
                    found |= _widened(taken(pidfd, int(entry.name)), name)
    return found


def _widened(descriptor: int, name: str) -> bool:
    with socket.socket(fileno=descriptor) as held:
        leads_there = held.family is socket.AF_UNIX and held.getpeername() == name
        if leads_there:
            _widen(held)
        return leads_there


def _widen(connection: socket.socket) -> None:
    try:
        connection.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER_BYTES)
    except PermissionError:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
