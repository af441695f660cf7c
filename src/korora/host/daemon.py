"""The daemon's life: it takes its premises, finds its VMs again, serves, and leaves without touching them.

Promise: one daemon per state directory; after SIGTERM or SIGINT nothing is accepted, what can be cancelled
safely is cancelled, sockets are removed, and every VM runs on. Limit: a service that will not stop is left
after a deadline, with a line in the log.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Protocol

import structlog

from korora.errors import ExitCode, KororaError
from korora.host.api import create_api
from korora.host.front import Front, first_of
from korora.host.log import log_to
from korora.host.premises import only_daemon
from korora.host.services import AsyncService, Services
from korora.model.configuration import HostConfiguration

STOP_DEADLINE_S = 60.0

_log = structlog.get_logger("korora.daemon")


class Wired(Protocol):
    """What the wiring builds from a configuration. Listeners start in order and stop in reverse."""

    @property
    def services(self) -> Services: ...
    @property
    def listeners(self) -> Sequence[AsyncService]: ...


Tell = Callable[[str, HostConfiguration], None]
Wire = Callable[[HostConfiguration], Awaitable[Wired]]


def run(
    configuration: HostConfiguration,
    wire: Wire,
    log_file: Path | None = None,
    tell: Tell = lambda _state, _host: None,
) -> int:
    """Be the daemon until SIGTERM or SIGINT; returns the exit code. `tell` hears when it is ready, and stops.

    KororaError when it cannot start: nothing is left running that was not before.
    """
    log_to(log_file, configuration.name)
    try:
        with only_daemon(configuration.state):
            asyncio.run(_live(configuration, wire, tell))
    except KororaError as problem:
        _log.error("daemon-failed", kind=problem.kind, error=problem.message, remedy=problem.remedy)
        raise
    return ExitCode.DONE


async def serve(
    configuration: HostConfiguration,
    services: Services,
    listeners: Sequence[AsyncService],
    stop: asyncio.Event,
    tell: Tell = lambda _state, _host: None,
) -> None:
    """Serve until `stop`. Whatever was begun is undone in the end, the VMs excepted."""
    async with AsyncExitStack() as undo:
        undo.push_async_callback(services.guests.close)
        await services.guests.recover()
        front = Front(create_api(services), configuration.api, configuration.api_group)
        # Last of all but the VMs: watchers of a migration that is cancelled shall hear its outcome.
        undo.push_async_callback(front.close)
        for listener in listeners:
            await listener.start()
            undo.push_async_callback(_stopped, listener)
        await front.open()
        undo.callback(front.refuse_new)
        _log.info("daemon-ready", api=str(configuration.api), vms=services.guests.counts(), pid=os.getpid())
        _tell_service_manager("READY=1")
        tell("ready", configuration)
        await first_of(stop.wait(), front.failed())
        _log.info("daemon-stops")
        _tell_service_manager("STOPPING=1")
        tell("stopping", configuration)
    _log.info("daemon-stopped")


async def _live(configuration: HostConfiguration, wire: Wire, tell: Tell) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    wired = await wire(configuration)
    # What lives as long as the daemon is not gone through again: a full collection took some 60 ms, and may
    # fall into a VM's pause.
    gc.collect()
    gc.freeze()
    await serve(configuration, wired.services, wired.listeners, stop, tell)


async def _stopped(listener: AsyncService) -> None:
    name = type(listener).__name__
    try:
        async with asyncio.timeout(STOP_DEADLINE_S):
            await listener.stop()
    except TimeoutError:
        _log.error("not-stopped-in-time", service=name, deadline_s=STOP_DEADLINE_S)
    except Exception:  # one that fails must not keep the others from stopping
        _log.exception("stop-failed", service=name)


def _tell_service_manager(state: str) -> None:
    """sd_notify(3), where a service manager asked for it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] in ("/", "@"):
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as note,
        ):
            note.sendto(state.encode(), address.replace("@", "\0", 1))
