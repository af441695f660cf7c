"""One QMP connection: commands with deadlines, events, and every foreign exception translated.

After a ToolError of kind `qmp-gone` or `qmp-silent` nothing is known of the command's effect: ask again, or
look at the process. QEMU serves one client per QMP socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from qemu.qmp import ConnectError, EventListener, ExecuteError, QMPClient, QMPError
from qemu.qmp.qmp_client import NegotiationError

from korora.adapters.hypervisor.command_line import checked_socket_name
from korora.errors import ToolError

COMMAND_DEADLINE_S = 15.0
_RETRY_S = 0.02

# Each failure reaches the caller as a ToolError; the library would log it a second time.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL + 1)


class Qmp:
    """A connected, negotiated QMP client. Made by `connect`."""

    def __init__(self, client: QMPClient, peer_pid: int, name: str) -> None:
        self._client = client
        self._name = name
        self.peer_pid = peer_pid

    @classmethod
    async def connect(cls, path: Path, deadline_s: float, alive: Callable[[], bool] = lambda: True) -> Qmp:
        """Connect as soon as something listens, for as long as `alive` holds.

        ToolError(kind="qmp-unreachable") after the deadline, or once nobody is left who could listen.
        """
        client = QMPClient(path.name)
        client.events.event_filter = lambda _: False  # it would keep every event of the VM's life
        try:
            async with asyncio.timeout(deadline_s):
                try:
                    sock = await _greeted(client, path, alive)
                except ConnectError as error:
                    if not isinstance(error.exc, NegotiationError):
                        raise
                    sock = await _greeted(client, path, alive)  # an event came before QEMU's answer
        except (OSError, QMPError, TimeoutError) as error:
            raise ToolError(
                f"no answer on the QMP socket {path}: {str(error) or 'nothing within the deadline'}",
                kind="qmp-unreachable",
                remedy="is QEMU running there, and is no other program connected to this socket? "
                "It serves one at a time: add a second -qmp to QEMU's command line if one holds it",
            ) from error
        return cls(client, _peer_pid(sock), path.name)

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        deadline_s: float = COMMAND_DEADLINE_S,
    ) -> Any:
        """What QEMU returns. ToolError: `qmp-refused` (QEMU said no), `qmp-silent`, `qmp-gone`."""
        try:
            async with asyncio.timeout(deadline_s):
                return await self._client.execute(command, arguments)
        except ExecuteError as error:
            raise ToolError(
                f"QEMU refused {command}: {error}", kind="qmp-refused", remedy="see qemu.log of this VM"
            ) from error
        except TimeoutError as error:
            raise ToolError(
                f"QEMU did not answer {command} within {deadline_s:g} s",
                kind="qmp-silent",
                remedy="the host may be overloaded, or the other end of QEMU's migration socket has stalled",
            ) from error
        except (QMPError, OSError, EOFError, AssertionError) as error:
            raise ToolError(
                f"the QMP connection was lost during {command}",
                kind="qmp-gone",
                remedy="see qemu.log of this VM",
            ) from error

    async def give(self, descriptor: int, name: str) -> None:
        """Hand QEMU a descriptor, known to it as `name` until a command takes it. Ours stays open.

        ToolError as for `execute`; QEMU has no descriptor of that name then.
        """
        self._send(descriptor)
        await self.execute("getfd", {"fdname": name})

    async def give_file(self, descriptor: int, purpose: str) -> str:
        """Hand QEMU a descriptor as a file that it may open, often, by the name that is returned.

        Ours stays open; QEMU keeps its own until `remove-fd`, or until this connection ends and nothing uses
        it any more. `purpose`: how query-fdsets tells of it. ToolError as for `execute`.
        """
        return f"/dev/fdset/{(await self.give_descriptor(descriptor, purpose))[0]}"

    async def give_descriptor(self, descriptor: int, purpose: str) -> tuple[int, int]:
        """The same; the number of the set for `remove-fd`, and that of the descriptor in QEMU."""
        self._send(descriptor)
        given = await self.execute("add-fd", {"opaque": purpose})
        return int(given["fdset-id"]), int(given["fd"])

    def _send(self, descriptor: int) -> None:
        try:
            self._client.send_fd_scm(descriptor)
        except (QMPError, OSError, AssertionError) as error:
            raise ToolError(
                "QEMU's monitor takes no descriptor",
                kind="qmp-gone",
                remedy="see qemu.log of this VM; its QMP socket must be a unix socket",
            ) from error

    @contextlib.contextmanager
    def events(self, *names: str) -> Iterator[EventListener]:
        """The named events from here on."""
        listener = EventListener(set(names))
        with self._client.listen(listener):
            yield listener

    async def close(self) -> None:
        """Disconnect. Never raises: a connection that is already lost is closed, too."""
        with contextlib.suppress(QMPError, OSError, EOFError, TimeoutError, AssertionError):
            async with asyncio.timeout(2):
                await self._client.disconnect()


async def _greeted(client: QMPClient, path: Path, alive: Callable[[], bool]) -> socket.socket:
    sock = await _connected(path, alive)
    await client.connect(sock)
    return sock


async def _connected(path: Path, alive: Callable[[], bool]) -> socket.socket:
    """Retry until something listens; the caller sets the deadline."""
    while True:
        try:
            return connect_once(path)
        except (FileNotFoundError, ConnectionRefusedError):
            if not alive():
                raise
            await asyncio.sleep(_RETRY_S)


def connect_once(path: Path) -> socket.socket:
    """Connect through the directory's descriptor: sun_path holds 107 bytes, a path may be longer.

    OSError as connect(2) gives it; UsageError(kind="socket-path") when even the name alone is too long.
    """
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(checked_socket_name(f"/proc/self/fd/{directory}/{path.name}", path))
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(directory)
    return sock


def _peer_pid(sock: socket.socket) -> int:
    """Who listens there: the kernel's word (unix(7), SO_PEERCRED)."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[0])
