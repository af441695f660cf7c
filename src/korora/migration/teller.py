"""Who watches a migration: phases are timed, progress is kept, and late watchers hear what they missed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Final

import structlog

from korora.model.meter import Meter, Reading
from korora.model.progress import Phase, Progress
from korora.ports.clock import Clock

Event = dict[str, object]
_KEPT_EVENTS: Final = 256  # a watcher that is slower than this misses progress, never the outcome
log = structlog.get_logger("korora.migration")


@dataclass(slots=True, eq=False)
class Teller:
    """The record of one migration while it runs. `events` ends after the outcome."""

    clock: Clock
    phase: Phase = Phase.REQUEST
    timings_ms: dict[str, float] = field(default_factory=dict)
    outcome: Event | None = None
    _meter: Meter = field(default_factory=Meter)
    _history: deque[Event] = field(default_factory=lambda: deque(maxlen=_KEPT_EVENTS))
    _told: int = 0
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def __call__(self, phase: Phase, play: Callable[[], Awaitable[None]]) -> None:
        """Play one phase, and note how long it took, also when it fails."""
        self.phase = phase
        self._meter, progress = self._meter.at_phase(phase)
        await self._say(progress)
        begun = self.clock.monotonic()
        log.info("phase begins", phase=phase)
        try:
            await play()
        finally:
            self.timings_ms[phase] = round((self.clock.monotonic() - begun) * 1000, 3)

    async def read(self, reading: Reading) -> None:
        self._meter, progress = self._meter.at_transfer(reading)
        await self._say(progress)

    async def note(self, message: str) -> None:
        await self._publish({"event": "note", "message": message})

    async def finish(self, outcome: Event) -> None:
        """The last word. Nothing is published after it."""
        self.outcome = {"event": "outcome", **outcome}
        await self._publish(self.outcome)

    async def events(self) -> AsyncIterator[Event]:
        """From the last progress on, for a watcher that comes late; then as things happen, to the outcome."""
        seen = max(0, self._told - 1)
        while True:
            async with self._news:
                while self._told <= seen:
                    await self._news.wait()
                missed = min(self._told - seen, len(self._history))
                fresh, seen = list(self._history)[-missed:], self._told
            for event in fresh:
                yield event
                if event is self.outcome:
                    return

    async def _say(self, progress: Progress) -> None:
        await self._publish({"event": "progress", **asdict(progress)})

    async def _publish(self, event: Event) -> None:
        async with self._news:
            self._history.append(event)
            self._told += 1
            self._news.notify_all()
