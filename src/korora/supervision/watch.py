"""What watches each live VM: one task for the end of its process, one for its boots."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import structlog

from korora.model.identity import VmName
from korora.ports.clock import Clock
from korora.supervision.boots.appraiser import BootAppraiser
from korora.supervision.boots.record import BootVerdict
from korora.supervision.boots.watch import BootWatch
from korora.supervision.live import LiveVm

_log = structlog.get_logger("korora.supervision")


async def process_ended(pid: int) -> None:
    """Return when the process is gone; at once when there is none. Cancelling leaves nothing behind.

    The pid must be the process's still: ask while something else shows it alive, such as its QMP socket.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class _Watch:
    end: asyncio.Task[None]
    boot: BootWatch | None
    boots: asyncio.Task[None] | None


class Watches:
    """The watches of all live VMs. `ended` waits for a process; a test may tell another story."""

    def __init__(
        self,
        appraiser: BootAppraiser,
        clock: Clock,
        ended: Callable[[int], Awaitable[None]] = process_ended,
        *,
        poll_s: float = 1.0,
    ) -> None:
        self._appraiser = appraiser
        self._clock = clock
        self._ended = ended
        self._poll_s = poll_s
        self._watches: dict[VmName, _Watch] = {}

    def begin(self, live: LiveVm, when_ended: Callable[[LiveVm], Awaitable[None]]) -> None:
        """Watch this VM until `stop`; call `when_ended` if its process ends first."""
        name = live.definition.name
        boot = boots = None
        if live.vtpm is not None and not live.definition.adopted:
            boot = BootWatch(
                name, live.place.directory, live.vtpm, self._appraiser, self._clock, poll_s=self._poll_s
            )
            boots = self._task(boot.run, f"boots of {name}")
        end = self._task(partial(self._tell_end, live, when_ended), f"end of {name}")
        self._watches[name] = _Watch(end, boot, boots)

    def verdict(self, name: VmName) -> BootVerdict | None:
        watch = self._watches.get(name)
        return watch.boot.verdict if watch and watch.boot else None

    async def judged(self, name: VmName) -> BootVerdict | None:
        """The verdict with all that the guest has told by now. ToolError when its vTPM cannot be read."""
        watch = self._watches.get(name)
        if watch is not None and watch.boot is not None:
            await watch.boot.look()
        return self.verdict(name)

    def ended(self, name: VmName) -> bool:
        """Whether a watched process ended, and `when_ended` was told so."""
        watch = self._watches.get(name)
        return watch is not None and watch.end.done()

    def stop(self, name: VmName) -> None:
        """Watch it no longer. May be called from `when_ended`."""
        watch = self._watches.pop(name, None)
        if watch is None:
            return
        if watch.boots is not None:
            watch.boots.cancel()
        # The task that brought the news of the end is still telling it: it must not cancel itself.
        if watch.end is not asyncio.current_task():
            watch.end.cancel()

    def close(self) -> None:
        for name in list(self._watches):
            self.stop(name)

    async def _tell_end(self, live: LiveVm, when_ended: Callable[[LiveVm], Awaitable[None]]) -> None:
        await self._ended(live.machine.pid)
        await when_ended(live)

    def _task(self, work: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
        async def told() -> None:
            try:
                await work()
            except Exception:  # a watch that dies unseen would be worse than a line in the log
                _log.exception("watch-failed", watch=name)

        return asyncio.create_task(told(), name=name)
