"""The one TCP port of a host. The first byte tells a control channel (TLS) from a data connection.

Promises bounded patience and a bounded number of strangers; trusts nothing that it reads here.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from korora.adapters.channel import tls
from korora.errors import KororaError, ToolError
from korora.protocol.frames import PREAMBLE_BYTES, parse_preamble

TLS_HANDSHAKE_RECORD: Final = 0x16  # RFC 8446, 5.1
_STRANGERS: Final = 64
_PATIENCE_S: Final = 10.0

log = structlog.get_logger(__name__)


class Listener:
    """Accepts connections until `stop`; hands channels and data sockets to whoever waits for them."""

    def __init__(
        self,
        address: str,
        identity: Callable[[], tls.TlsIdentity | None],
        on_channel: Callable[[tls.TlsChannel], Awaitable[None]],
        on_data: Callable[[bytes, socket.socket], None],
    ) -> None:
        self._address = address
        self._identity = identity
        self._on_channel = on_channel
        self._on_data = on_data
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._visitors: set[asyncio.Task[None]] = set()
        self._strangers = asyncio.Semaphore(_STRANGERS)

    async def start(self) -> None:
        """Bind and listen. ToolError when the address is taken or not this host's."""
        host, _, port = self._address.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host.strip("[]"), int(port)))
            listening.listen(128)
        except (OSError, ValueError) as error:
            listening.close()
            raise ToolError(
                f"this host cannot listen on {self._address}: {error}",
                kind="listen",
                remedy="correct `listen` in hostd.toml, or end what uses that port",
            ) from error
        listening.setblocking(False)
        self._socket = listening
        self._accepting = asyncio.create_task(self._accept())

    async def stop(self) -> None:
        """Stop accepting and end what is open. Idempotent."""
        tasks = [task for task in (self._accepting, *self._visitors) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _accept(self) -> None:
        assert self._socket is not None  # noqa: S101 start() made it
        loop = asyncio.get_running_loop()
        while True:
            await self._strangers.acquire()
            try:
                connection, _ = await loop.sock_accept(self._socket)
            except OSError as error:  # out of descriptors, or the visitor left at once: go on after a breath
                self._strangers.release()
                log.warning("accept failed", error=str(error))
                await asyncio.sleep(0.1)
                continue
            visitor = asyncio.create_task(self._welcome(connection))
            self._visitors.add(visitor)
            visitor.add_done_callback(self._visitors.discard)

    async def _welcome(self, connection: socket.socket) -> None:
        known = contextlib.ExitStack()
        known.callback(self._strangers.release)
        try:
            connection.setblocking(False)
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(_PATIENCE_S):
                first = await loop.sock_recv(connection, 1)
            if not first:
                connection.close()
            elif first[0] == TLS_HANDSHAKE_RECORD:
                await self._welcome_channel(connection, first, known)
            else:
                await self._welcome_data(connection, first)
        except (KororaError, OSError, TimeoutError) as error:
            connection.close()
            log.warning("visitor turned away", error=str(error) or type(error).__name__)
        except asyncio.CancelledError:
            connection.close()
            raise
        finally:
            known.close()

    async def _welcome_channel(
        self, connection: socket.socket, first: bytes, known: contextlib.ExitStack
    ) -> None:
        identity = self._identity()
        if identity is None:
            connection.close()
            log.warning("visitor turned away", error="this host is not enrolled yet")
            return
        channel = await tls.accept(connection, first, identity)
        known.close()  # no stranger any more: its place is free while the session lasts
        try:
            await self._on_channel(channel)
        finally:
            await channel.close()

    async def _welcome_data(self, connection: socket.socket, first: bytes) -> None:
        loop = asyncio.get_running_loop()
        preamble = bytearray(first)
        async with asyncio.timeout(_PATIENCE_S):
            while len(preamble) < PREAMBLE_BYTES:
                piece = await loop.sock_recv(connection, PREAMBLE_BYTES - len(preamble))
                if not piece:
                    raise ConnectionResetError("the visitor left in the middle of its preamble")
                preamble += piece
        ticket = parse_preamble(bytes(preamble))
        connection.setblocking(True)
        self._on_data(ticket, connection)
