"""Which VMs are live, which are moving, and what is done when one comes or goes.

Promise: one VM's start, stop, end and move exclude each other. Limit: it starts nothing and owns nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import structlog

from korora.errors import ToolError
from korora.model.identity import VmName
from korora.model.vm import VmDefinition
from korora.ports.clock import Clock
from korora.ports.journal import Journal
from korora.ports.vtpm import VtpmAgent
from korora.supervision import refusals
from korora.supervision.boots.record import BootVerdict
from korora.supervision.inspection import dossier
from korora.supervision.life import LifeNote, read_life, write_life
from korora.supervision.live import Found, LiveVm
from korora.supervision.watch import Watches

_log = structlog.get_logger("korora.supervision")


class Roster:
    """The live VMs of this host, by name."""

    def __init__(self, vtpm_agent: VtpmAgent, journal: Journal, watches: Watches, clock: Clock) -> None:
        self._vtpm_agent = vtpm_agent
        self._journal = journal
        self._watches = watches
        self._clock = clock
        self._live: dict[VmName, LiveVm] = {}
        self._moves: set[VmName] = set()
        self._looked_into: set[VmName] = set()
        self._locks: dict[VmName, asyncio.Lock] = {}

    def live(self, name: VmName) -> LiveVm | None:
        return self._live.get(name)

    def everyone(self) -> list[LiveVm]:
        return list(self._live.values())

    def moving(self, name: VmName) -> bool:
        return name in self._moves

    def moves(self) -> int:
        return len(self._moves)

    def verdict(self, name: VmName) -> BootVerdict | None:
        """Of a live VM with a vTPM of ours; None of any other."""
        return self._watches.verdict(name)

    async def judged(self, name: VmName) -> BootVerdict | None:
        """The same, with what the guest told a moment ago. ToolError when its vTPM cannot be read."""
        return await self._watches.judged(name)

    @asynccontextmanager
    async def alone(self, name: VmName) -> AsyncIterator[None]:
        """The only start, stop or change of this VM, and no move or inspection meanwhile.

        RefusedError moving, busy.
        """
        self._refuse_longer_work(name)
        async with self._lock(name):
            self._refuse_longer_work(name)  # it may have begun while we waited
            yield

    @contextmanager
    def looking_into(self, name: VmName) -> Iterator[None]:
        """Nobody starts, stops or moves this VM meanwhile; that it ends by itself is noted. RefusedError."""
        self.refuse_busy(name)
        self._looked_into.add(name)
        try:
            yield
        finally:
            self._looked_into.discard(name)

    def refuse_busy(self, name: VmName) -> None:
        """RefusedError moving, or busy while it is started, stopped or looked into."""
        self._refuse_longer_work(name)
        if self._lock(name).locked():
            raise refusals.busy(name)

    def _refuse_longer_work(self, name: VmName) -> None:
        if name in self._moves:
            raise refusals.moving(name)
        if name in self._looked_into:
            raise refusals.busy(name)

    def begin_move(self, name: VmName) -> None:
        self.refuse_busy(name)
        self._moves.add(name)

    async def end_move(self, name: VmName) -> None:
        self._moves.discard(name)
        live = self._live.get(name)
        if live is not None and self._watches.ended(name):
            await self._ended(live)

    def enter(self, live: LiveVm, reason: str) -> None:
        """From now on this VM is live and watched."""
        dossier.note_run(live.place.directory)
        self.reenter(live)
        self._note(live, running=True, reason=reason)

    def reenter(self, live: LiveVm) -> None:
        """The same, of one that ran all along."""
        self._live[live.definition.name] = live
        self._watches.begin(live, self._ended)

    def let_go(self, live: LiveVm, reason: str) -> None:
        """This VM is no longer live here. Process, machine and vTPM are the caller's from now on."""
        self._live.pop(live.definition.name, None)
        self._watches.stop(live.definition.name)
        self._note(live, running=False, reason=reason)

    async def settle(self, live: LiveVm, reason: str) -> None:
        """After the end of the process. Custody of the vTPM at rest is settled last: it may fail."""
        self.let_go(live, reason)
        with suppress(ToolError):
            await live.machine.close()
        await self._rest(live.definition, live.place.directory)

    async def settle_absent(self, found: Found, directory: Path) -> None:
        """No process was found: note a VM that died unseen, and end what is left of its vTPM."""
        life = read_life(directory)
        died = life is not None and life.running
        if died:
            reason = "its QEMU ended while the daemon was not running"
            write_life(directory, LifeNote(False, self._clock.now(), reason))
            _log.warning("vm-stopped", vm=found.definition.name, reason=reason)
        if died or found.vtpm is not None:
            await self._rest(found.definition, directory)

    async def close(self) -> None:
        """Let go of everything; the VMs go on."""
        self._watches.close()
        for live in self._live.values():
            with suppress(ToolError):
                await live.machine.close()
        self._live.clear()

    def _lock(self, name: VmName) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    async def _ended(self, live: LiveVm) -> None:
        name = live.definition.name
        async with self._lock(name):
            # While it moves, what its end means is the migration's to say; `end_move` looks again.
            if self._live.get(name) is live and name not in self._moves:
                await self.settle(live, "its QEMU ended without being asked to")

    async def _rest(self, definition: VmDefinition, directory: Path) -> None:
        record = self._journal.vm(definition.name)
        # A vTPM whose hand-over is not settled belongs to the migration's recovery.
        if definition.vtpm and not definition.adopted and record is not None and refusals.owned(record):
            await self._vtpm_agent.stopped(definition.name, directory)

    def _note(self, live: LiveVm, *, running: bool, reason: str) -> None:
        word = "vm-runs" if running else "vm-stopped"
        _log.info(word, vm=live.definition.name, reason=reason, pid=live.machine.pid)
        try:
            write_life(live.place.directory, LifeNote(running, self._clock.now(), reason))
        except ToolError as problem:  # a note; the VM does not hang on it
            _log.warning("life-note-not-written", vm=live.definition.name, error=problem.message)
