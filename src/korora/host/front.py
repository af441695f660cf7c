"""The API's server: uvicorn on a unix socket, with its life in the daemon's hands.

Limit: requests under way get `GRACE_S` to finish; a watcher of a migration is cut off after that.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from korora.errors import ToolError
from korora.host.caller import CallerProtocol
from korora.host.premises import listening_socket

GRACE_S = 5


class _Server(uvicorn.Server):
    """Signals are the daemon's: it stops other things before the API."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def first_of(*waits: Awaitable[object]) -> None:
    """Until one is over, the others being cancelled; raises what that one raised."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    for task in done:
        task.result()


class Front:
    """The API at a socket. `open`, `refuse_new`, `close`, in that order."""

    def __init__(self, api: FastAPI, path: Path, group: str = "") -> None:
        self._path = path
        self._group = group
        self._server = _Server(
            uvicorn.Config(
                api,
                loop="asyncio",
                http=CallerProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        self._listener: socket.socket | None = None
        self._serving: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Answer from now on. RefusedError or ToolError when the socket cannot be had."""
        self._listener = listening_socket(self._path, self._group)
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._listener]), name="api")
        await first_of(self._server.ready.wait(), self.failed())

    async def failed(self) -> None:
        """Wait until the server ends by itself, which it should not; raises what ended it, or ToolError."""
        if self._serving is not None:
            await asyncio.shield(self._serving)
            raise ToolError("the API's server ended by itself", kind="api-socket", remedy="see the log")

    def refuse_new(self) -> None:
        """Nobody connects any more; the socket file is gone. Requests under way go on. Idempotent."""
        if self._listener is not None:
            self._listener = None
            self._path.unlink(missing_ok=True)
            for server in getattr(self._server, "servers", ()):
                server.close()

    async def close(self) -> None:
        """Let requests under way finish, within GRACE_S, and end."""
        self.refuse_new()
        self._server.should_exit = True
        if self._serving is not None:
            await asyncio.gather(self._serving, return_exceptions=True)
