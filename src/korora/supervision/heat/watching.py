"""Watches what running VMs ask of their disks, a moment now and then, and knows what is popular (A5).

Promise: a VM is watched only while it runs and does not move; one that cannot be watched goes on, and is
tried again after a while. Of each disk at most 6 MiB are held, of a VM at most DISKS_MAX disks. A popularity
that is known is never changed, another takes its place: so threads and the loop may read it. Limit: what was
learnt since the last SAVE_S is lost with a daemon that is killed, or with the end of the VM.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import structlog

from korora.agents.dataorg.picture import picture
from korora.agents.dataorg.popularity import Popularity
from korora.errors import KororaError
from korora.model.configuration import Watching
from korora.model.heat import VmHeat
from korora.model.identity import VmName
from korora.model.vm import RunState
from korora.ports.clock import Clock
from korora.ports.sampling import DiskSample, RequestSampler
from korora.supervision.guests import Guests
from korora.supervision.heat.shelf import DISKS_MAX, read_heat, write_heat
from korora.supervision.live import LiveVm

SAVE_S: Final = 60.0
AGAIN_S: Final = 300.0
AT_ONCE: Final = 16
LOOK_S: Final = 0.5

_log = structlog.get_logger("korora.supervision")


@dataclass(slots=True)
class _Known:
    """Of one VM that runs: one process of it."""

    live: LiveVm
    disks: dict[str, Popularity]
    next_at: float
    saved_at: float
    why: str = ""
    task: asyncio.Task[None] | None = field(default=None)


class HeatWatch:
    """Part of the daemon: `start`, `stop`. All methods belong on the daemon's event loop."""

    def __init__(self, guests: Guests, clock: Clock, watching: Watching) -> None:
        self._guests = guests
        self._clock = clock
        self._watching = watching
        self._known: dict[VmName, _Known] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._watching.every_s > 0:
            self._task = asyncio.create_task(self._watch(), name="heat")

    async def stop(self) -> None:
        """Watch nobody any more, and keep what is known."""
        tasks = [self._task, *(known.task for known in self._known.values())]
        running = [task for task in tasks if task is not None]
        for task in running:
            task.cancel()
        for task in running:
            with suppress(asyncio.CancelledError):
                await task
        for known in self._known.values():
            await self._save(known)
        self._known.clear()

    async def popularity(self, vm: str) -> Mapping[str, Popularity]:
        """Of each disk that is known, as it is now. UsageError unknown-vm."""
        directory = self._guests.known_directory(vm)
        known = self._known.get(VmName(vm))
        disks = known.disks if known is not None else await asyncio.to_thread(read_heat, directory)
        now = self._clock.now()
        return {name: _as_of(one, now) for name, one in disks.items()}

    async def hot(self, vm: str) -> dict[str, list[int]]:
        """The popular chunks of each disk that is known, the most read first. UsageError unknown-vm."""
        return {
            name: [int(chunk) for chunk in one.hot()] for name, one in (await self.popularity(vm)).items()
        }

    async def heat(self, vm: str, cells: int) -> VmHeat:
        """As it is shown, each disk in at most `cells` cells. UsageError unknown-vm."""
        disks = await self.popularity(vm)
        shown = await asyncio.to_thread(
            lambda: tuple(picture(name, one, cells) for name, one in sorted(disks.items()))
        )
        return VmHeat(
            vm=vm,
            at=self._clock.now(),
            every_s=self._watching.every_s,
            sample_s=self._watching.sample_s,
            why=self._why_not(VmName(vm)),
            disks=shown,
        )

    def _why_not(self, vm: VmName) -> str:
        if self._watching.every_s <= 0:
            return "the host's configuration turns it off: [heat] every_seconds = 0"
        known = self._known.get(vm)
        if known is not None:
            return known.why
        return "" if any(live.definition.name == vm for live in self._guests.staying()) else "it does not run"

    async def _watch(self) -> None:
        while True:
            try:
                await self._look()
            except Exception:  # who watches must not end unseen
                _log.exception("watch-failed", watch="heat")
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        now = self._clock.monotonic()
        running = {live.definition.name: live for live in self._guests.staying()}
        for name in [name for name, known in self._known.items() if not self._is_live(name, known)]:
            gone = self._known.pop(name)
            if gone.task is not None:
                gone.task.cancel()
        for name, live in running.items():
            known = self._known.get(name)
            if known is None:
                disks = await asyncio.to_thread(read_heat, live.place.directory)
                known = self._known[name] = _Known(live, disks, now, now)
            idle = known.task is None or known.task.done()
            if idle and now >= known.next_at:
                known.next_at = now + self._watching.every_s
                known.task = asyncio.create_task(self._sampled(name, known), name=f"heat of {name}")

    def _is_live(self, name: VmName, known: _Known) -> bool:
        return self._guests.is_live(name, known.live)

    async def _sampled(self, name: VmName, known: _Known) -> None:
        try:
            async with self._slots:
                sampler = known.live.machine.sampler
                if sampler is None:
                    self._put_off(name, known, "somebody else started it, whose log is not ours")
                    return
                known.why = await self._sample(known, sampler)
        except KororaError as problem:
            self._put_off(name, known, problem.message)
        except Exception:
            _log.exception("watch-failed", watch=f"heat of {name}")
            self._put_off(name, known, "an error of the daemon; see its log")
        if self._clock.monotonic() >= known.saved_at + SAVE_S:
            await self._save(known)

    async def _sample(self, known: _Known, sampler: RequestSampler) -> str:
        """Why it was not watched; nothing when it was."""
        if await known.live.machine.run_state() is not RunState.RUNNING:
            return "it stands still"
        seen = await sampler.sample(self._watching.sample_s)
        now = self._clock.now()
        for disk, sample in list(seen.items())[:DISKS_MAX]:
            known.disks[disk] = await asyncio.to_thread(_added, known.disks.get(disk), sample, now)
        return ""

    def _put_off(self, name: VmName, known: _Known, why: str) -> None:
        known.next_at = self._clock.monotonic() + AGAIN_S
        if known.why != why:
            _log.info("vm-not-watched", vm=name, reason=why)
        known.why = why

    async def _save(self, known: _Known) -> None:
        known.saved_at = self._clock.monotonic()
        try:
            if known.disks:
                await asyncio.to_thread(write_heat, known.live.place.directory, dict(known.disks))
        except KororaError as problem:  # it is learnt again
            _log.warning("heat-not-kept", vm=known.live.definition.name, error=problem.message)


def _added(known: Popularity | None, sample: DiskSample, now: float) -> Popularity:
    """A disk that was made larger or smaller keeps what is known of its beginning."""
    made = Popularity(sample.size) if known is None else known.resized(sample.size)
    made.add(now, sample.seconds, sample.reads, sample.writes)
    return made


def _as_of(known: Popularity, now: float) -> Popularity:
    made = known.resized(known.size)
    made.decay(now)
    return made
