"""Korora's migration, ordered and followed as its command line does, through the daemon's API.

Limit: the time the `korora` command itself needs to start is no part of the order; docs/benchmark.md says so.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench import accounting
from bench.figures import KORORA, Run
from bench.guest import Watched

from korora.cli.migration.request import signed_request
from korora.cli.site import load_site
from korora.client import Daemon, MigrationOutcome, MigrationProgress
from korora.errors import ToolError
from korora.lab.layout import Layout
from korora.lab.lifecycle import HostStatus, status
from korora.model.plan import Mode
from korora.model.progress import Phase
from korora.model.vm import VmDefinition

_INTERPOSER: Final = b"korora.agents.vtpm.interposer"
_RUNS: Final = frozenset({Phase.WIPE, Phase.RECEIPT})
"""Told only once the destination's signed word that the guest runs has come."""


@dataclass(slots=True)
class _Story:
    """When each phase was first told of, and the end. Monotonic seconds."""

    began: dict[str, float] = field(default_factory=dict)
    outcome: MigrationOutcome | None = None
    ended: float = 0.0

    def phases_ms(self, ordered: float) -> dict[str, float]:
        names = ["order", *self.began]
        times = [ordered, *self.began.values(), self.ended]
        return {name: round((times[n + 1] - times[n]) * 1000, 1) for n, name in enumerate(names)}


class ByKorora:
    """One VM that two daemons move between them."""

    def __init__(self, layout: Layout, definition: VmDefinition, watched: Watched) -> None:
        self._site = load_site(layout.configuration)
        self._definition = definition
        self._watched = watched
        self._hosts: tuple[HostStatus, ...] = status(layout).hosts[:2]
        self._at = self._hosts[0]
        with self._daemon(self._at) as daemon:
            text = (layout.machines / f"{definition.name}.toml").read_text()
            self._pid = daemon.define(text, start=True).pid or 0

    def hold(self) -> None:
        """It takes no CPU while another VM is measured."""
        os.kill(self._pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    def move(self, number: int) -> Run:
        """Order it to the other host, and follow it to its end: the source wiped, the receipt signed."""
        source, there = self._at, self._hosts[1] if self._at is self._hosts[0] else self._hosts[0]
        daemons = self._daemon_pids()
        for pid in daemons.values():
            accounting.reset_peak(pid)
        busy, used, ordered = accounting.machine_cpu_s(), self._cpu_s(), time.monotonic()
        story, used_when_running = self._follow(source, there)
        used_at_end, busy = self._cpu_s() - used, accounting.machine_cpu_s() - busy
        outcome = self._completed(story)
        seen = self._watched.seen_since(ordered)
        self._at = there
        with self._daemon(there) as daemon:
            self._pid = daemon.vm(self._definition.name).pid or 0
        return Run(
            way=KORORA,
            number=number,
            ram_mib=self._definition.memory_bytes >> 20,
            source=source.name,
            wall_s=round(self._running_at(story) - ordered, 4),
            transfer_s=round((story.began[Phase.VERIFY] - story.began[Phase.TRANSFER]), 4),
            downtime_ms=seen.downtime_ms,
            own_downtime_ms=outcome.downtime_ms or 0.0,
            cpu_s=round(used_at_end, 2),
            cpu_until_running_s=round(used_when_running - used, 2),
            others_cpu_s=round(busy - used_at_end, 2),
            bytes_sent=outcome.bytes_sent or 0,
            ticks=seen.ticks,
            decisions_ms=outcome.decisions_ms or 0.0,
            peak_mib={name: accounting.peak_mib(pid) for name, pid in daemons.items()},
            beside_peak_mib=self._interposers(daemons),
            phases_ms=story.phases_ms(ordered),
        )

    def end(self) -> None:
        """The VM ends with the lab."""

    def _follow(self, source: HostStatus, there: HostStatus) -> tuple[_Story, float]:
        story, used_when_running = _Story(), 0.0
        with self._daemon(source) as daemon:
            request = signed_request(self._site, self._definition.name, source.name, there.name, Mode.LIVE)
            for event in daemon.events(daemon.migrate(request.decode(), there.address)):
                if isinstance(event, MigrationProgress) and event.phase not in story.began:
                    story.began[event.phase] = time.monotonic()
                    if not used_when_running and event.phase in _RUNS:
                        used_when_running = self._cpu_s()
                elif isinstance(event, MigrationOutcome):
                    story.outcome, story.ended = event, time.monotonic()
        return story, used_when_running

    def _completed(self, story: _Story) -> MigrationOutcome:
        outcome = story.outcome
        if outcome is None or outcome.outcome != "completed":
            why = outcome.error.message if outcome is not None and outcome.error is not None else "no outcome"
            raise ToolError(f"Korora did not complete the migration: {why}", kind="bench-korora")
        return outcome

    def _running_at(self, story: _Story) -> float:
        return min(at for phase, at in story.began.items() if phase in _RUNS)

    def _cpu_s(self) -> float:
        """Daemons with all they started, QEMUs and vTPMs too, and both hosts' own TPMs."""
        roots = [pid for host in self._hosts for pid in (host.daemon_pid, host.tpm_pid) if pid]
        return accounting.tree_cpu_s(roots)

    def _daemon_pids(self) -> dict[str, int]:
        return {host.name: host.daemon_pid or 0 for host in self._hosts}

    def _interposers(self, daemons: dict[str, int]) -> dict[str, float]:
        return {
            name: accounting.peak_mib(pid)
            for name, daemon in daemons.items()
            for pid in accounting.descendants_named(daemon, _INTERPOSER)
        }

    def _daemon(self, host: HostStatus) -> Daemon:
        return Daemon(Path(host.api), host.name)
