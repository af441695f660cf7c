"""Connections to this host's data plane, with room in the socket for whole chunks.

What fits between a sender and its reader is decided by the sender's buffer, and the usual one cuts a chunk
into small parts: many wakeups and frames for the same bytes.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final

from korora.adapters.hypervisor.qmp import connect_once

_SEND_BUFFER_BYTES: Final = 4 << 20
_SO_SNDBUFFORCE: Final = 32  # socket(7); not in the socket module


def connect_wide(path: Path) -> socket.socket:
    """OSError as connect(2) gives it. Without CAP_NET_ADMIN the kernel's limit holds: slower, not wrong."""
    connection = connect_once(path)
    try:
        connection.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER_BYTES)
    except PermissionError:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    return connection
