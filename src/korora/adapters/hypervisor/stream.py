"""QEMU's migration stream, driven by QMP: both sides' settings, the states as they come, switchover, cancel.

The source always stops at pre-switchover. Both sides ask for the return path: without it the source would say
`completed` to a dead destination. Limit: while the socket's peer stalls after switchover, QMP may be silent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

from korora.adapters.hypervisor.command_line import socket_path
from korora.adapters.hypervisor.qmp import Qmp
from korora.adapters.hypervisor.wide import connect_wide
from korora.errors import ToolError
from korora.ports.hypervisor import StreamSettings, StreamState, StreamStatus

POLL_S = 0.5
ASK_DEADLINE_S = 2.0
CANCEL_DEADLINE_S = 15.0
FINAL = frozenset({StreamState.COMPLETED, StreamState.FAILED, StreamState.CANCELLED})
NEEDED = ("return-path", "pause-before-switchover", "events")

_OUTGOING = "korora-stream"  # the name of the descriptor inside QEMU
_STATES = {
    "none": StreamState.NONE,
    "setup": StreamState.ACTIVE,
    "wait-unplug": StreamState.ACTIVE,
    "active": StreamState.ACTIVE,
    "cancelling": StreamState.ACTIVE,
    "postcopy-active": StreamState.DEVICE,
    "pre-switchover": StreamState.PRE_SWITCHOVER,
    "device": StreamState.DEVICE,
    "completed": StreamState.COMPLETED,
    "failed": StreamState.FAILED,
    "cancelled": StreamState.CANCELLED,
}


class Watched(Protocol):
    """Whoever knows whether QEMU still lives."""

    @property
    def is_gone(self) -> bool: ...


def address(path: Path, directory: Path | None) -> str:
    """The socket as QEMU can name it. Our own QEMUs run in their place; an adopted one runs anywhere."""
    return "unix:" + socket_path(path, directory)


async def listen(qmp: Qmp, uri: str, settings: StreamSettings) -> None:
    """Destination: accept the stream. Disks stay without lock until the VM runs, where QEMU can do that."""
    await _set_capabilities(qmp, settings, incoming=True)
    await qmp.execute("migrate-incoming", {"uri": uri})


async def send(qmp: Qmp, path: Path, directory: Path | None, settings: StreamSettings) -> None:
    """Source: begin to send to whoever listens on `path`."""
    await _set_capabilities(qmp, settings, incoming=False)
    limits = {
        "downtime-limit": settings.downtime_limit_ms,
        "max-bandwidth": settings.max_bandwidth_bytes_per_s,
    }
    await qmp.execute("migrate-set-parameters", limits)
    if settings.channels > 0:  # QEMU opens several connections, so it must do so itself
        await qmp.execute("migrate", {"uri": address(path, directory)})
    else:
        await _send_connected(qmp, path)


async def _send_connected(qmp: Qmp, path: Path) -> None:
    """Connect for QEMU, which would give the socket less room."""
    try:
        connection = connect_wide(path)
    except OSError as error:
        raise ToolError(
            f"nobody listens for the stream on {path}: {error.strerror}",
            kind="stream-socket",
            remedy="see the daemon's log: the relay must listen before the stream begins",
        ) from error
    with connection:
        await qmp.give(connection.fileno(), _OUTGOING)
    try:
        await qmp.execute("migrate", {"uri": f"fd:{_OUTGOING}"})
    except ToolError:
        with contextlib.suppress(ToolError):
            await qmp.execute("closefd", {"fdname": _OUTGOING})
        raise


async def allow_downtime(qmp: Qmp, limit_ms: int) -> None:
    """Takes effect within 100 ms, also on a stream that is under way."""
    await qmp.execute("migrate-set-parameters", {"downtime-limit": limit_ms})


async def switch_over(qmp: Qmp) -> None:
    await qmp.execute("migrate-continue", {"state": "pre-switchover"})


async def cancel(qmp: Qmp) -> None:
    """Give up and wait until the VM is back as it was. ToolError(kind="stream-completed"): too late."""
    await qmp.execute("migrate_cancel")
    try:
        async with asyncio.timeout(CANCEL_DEADLINE_S):
            while not await _is_over(qmp):  # noqa: ASYNC110 (QEMU tells no event for the CPUs' return)
                await asyncio.sleep(0.01)
    except TimeoutError as error:
        raise ToolError(
            f"QEMU did not give the stream up within {CANCEL_DEADLINE_S:g} s",
            kind="qmp-silent",
            remedy="close the other end of its migration socket",
        ) from error


async def _is_over(qmp: Qmp) -> bool:
    found = (await status(qmp)).state
    if found is StreamState.COMPLETED:
        raise ToolError("the stream had completed already", kind="stream-completed")
    return (found in FINAL or found is StreamState.NONE) and not await _between_states(qmp)


async def status(qmp: Qmp) -> StreamStatus:
    told = await qmp.execute("query-migrate")
    ram = told.get("ram", {})
    return StreamStatus(
        state=folded(told.get("status", "none")),
        transferred_bytes=ram.get("transferred", 0),
        remaining_bytes=ram.get("remaining", 0),
        total_bytes=ram.get("total", 0),
        round=ram.get("dirty-sync-count", 0),
        dirty_rate_bytes_per_s=float(ram.get("dirty-pages-rate", 0) * ram.get("page-size", 4096)),
        rate_bytes_per_s=ram.get("mbps", 0.0) * 1e6 / 8,
        downtime_ms=told.get("downtime"),
        reason=told.get("error-desc", ""),
    )


async def has_completed(qmp: Qmp) -> bool:
    return (await status(qmp)).state is StreamState.COMPLETED


def folded(word: str) -> StreamState:
    """QMP's MigrationStatus in our words; one that we do not know is taken as still under way."""
    return _STATES.get(word, StreamState.ACTIVE)


async def states(qmp: Qmp, process: Watched) -> AsyncIterator[StreamState]:
    """The present state, then each change, by event or, should one be missed, by asking; ends when final."""
    with qmp.events("MIGRATION") as events:
        seen = (await status(qmp)).state
        yield seen
        while seen not in FINAL:
            found = await _next_state(qmp, events, process)
            if found is not None and found is not seen:
                seen = found
                yield seen


async def _next_state(qmp: Qmp, events: Any, process: Watched) -> StreamState | None:
    try:
        event = await asyncio.wait_for(events.get(), POLL_S)
    except TimeoutError:
        return await _asked(qmp, process)
    return folded(str(event["data"]["status"]))


async def _asked(qmp: Qmp, process: Watched) -> StreamState | None:
    """By query-migrate; None while QEMU is too busy to answer, which at switchover is no failure."""
    if process.is_gone:
        raise ToolError("the process has ended", kind="vm-process-gone")
    try:
        found = await qmp.execute("query-migrate", deadline_s=ASK_DEADLINE_S)
    except ToolError as error:
        if error.kind == "qmp-silent":
            return None
        raise
    return folded(found.get("status", "none"))


async def _between_states(qmp: Qmp) -> bool:
    """True while QEMU has stopped the CPUs for the stream and has not yet let them go."""
    return bool((await qmp.execute("query-status"))["status"] == "finish-migrate")


async def _set_capabilities(qmp: Qmp, settings: StreamSettings, *, incoming: bool) -> None:
    known = {entry["capability"] for entry in await qmp.execute("query-migrate-capabilities")}
    missing = [name for name in NEEDED if name not in known]
    if missing:
        raise ToolError(
            f"this QEMU lacks the migration capabilities {', '.join(missing)}",
            kind="qemu-too-old",
            remedy="install QEMU 7.2 or newer",
        )
    wanted = {
        "return-path": True,
        "events": True,
        "pause-before-switchover": not incoming,
        "multifd": settings.channels > 0,
        "late-block-activate": incoming,
    }
    states = [{"capability": name, "state": on} for name, on in wanted.items() if name in known]
    await qmp.execute("migrate-set-capabilities", {"capabilities": states})
    if settings.channels > 0:
        await qmp.execute("migrate-set-parameters", {"multifd-channels": settings.channels})
