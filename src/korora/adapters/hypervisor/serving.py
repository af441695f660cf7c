"""QEMU's one NBD server, at a unix socket that is made here: QEMU need not be allowed into its folder."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from korora.adapters.hypervisor.command_line import checked_socket_name
from korora.adapters.hypervisor.qmp import Qmp
from korora.errors import ToolError

_GIVEN: Final = "disks.sock"


async def serve(qmp: Qmp, path: Path) -> None:
    """ToolError(kind="qmp-refused") when its server is in use; UsageError for a path that is too long."""
    with listening(path) as listener:
        await qmp.give(listener.fileno(), _GIVEN)
    address = {"type": "fd", "data": {"str": _GIVEN}}
    try:
        await qmp.execute("nbd-server-start", {"addr": address, "max-connections": 0})
    except ToolError:
        with suppress(ToolError):  # QEMU took it, and closed it
            await qmp.execute("closefd", {"fdname": _GIVEN})
        raise


async def serve_alone(qmp: Qmp, path: Path) -> None:
    """As `serve`, where QEMU's storage daemon makes the socket: its monitor takes no descriptor."""
    path.unlink(missing_ok=True)
    address = {"type": "unix", "data": {"path": checked_socket_name(str(path), path)}}
    await qmp.execute("nbd-server-start", {"addr": address, "max-connections": 0})


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A socket that listens there, for root alone. One that was left is replaced."""
    with socket.socket(socket.AF_UNIX) as listener:
        path.unlink(missing_ok=True)
        listener.bind(checked_socket_name(str(path), path))
        path.chmod(0o600)
        listener.listen(64)
        yield listener
