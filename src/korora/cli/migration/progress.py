"""Show a migration while it runs: a bar on a terminal, a line per phase elsewhere, JSON lines for scripts.

Promise: what is shown never runs backwards, whatever arrives. Limit: shows; decides nothing.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Protocol

from korora.cli.render import clean, say, say_json, size
from korora.client import MigrationNote, MigrationProgress
from korora.model.progress import Phase

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_ORDER = {str(phase): place for place, phase in enumerate(Phase)}
_LINE_EVERY_S = 10.0

TITLES = {
    "request": "reading the request",
    "authorize": "authorizing",
    "attest": "attesting both hosts",
    "agree": "prechecks and cryptography",
    "baseline": "taking the baseline",
    "transfer": "transferring",
    "switchover": "switching over",
    "verify": "verifying",
    "commit": "handing over",
    "wipe": "wiping the source",
    "receipt": "signing the receipt",
}


class Watcher(Protocol):
    """Sees each event but the outcome, in order."""

    def see(self, event: MigrationProgress | MigrationNote) -> None: ...

    def close(self) -> None:
        """Nothing more comes. Leaves the terminal as it was."""
        ...


def watcher(*, as_json: bool) -> Watcher:
    if as_json:
        return JsonLines()
    return Bar() if sys.stdout is not None and sys.stdout.isatty() else Lines()


class JsonLines:
    """One object a line; the numbers are clamped as in the other ways to show them."""

    def __init__(self) -> None:
        self._course = Course()

    def see(self, event: MigrationProgress | MigrationNote) -> None:
        say_json(self._course.forward(event) if isinstance(event, MigrationProgress) else event)

    def close(self) -> None:
        """JSON lines leave nothing open."""


class Lines:
    """A line when a phase begins, and one in a while during a long one."""

    def __init__(self) -> None:
        self._course = Course()
        self._phase = ""
        self._said_at = 0.0

    def see(self, event: MigrationProgress | MigrationNote) -> None:
        if isinstance(event, MigrationNote):
            say(f"  {event.message}")
            return
        event = self._course.forward(event)
        now = time.monotonic()
        if event.phase != self._phase or now - self._said_at >= _LINE_EVERY_S:
            self._phase, self._said_at = event.phase, now
            say(f"{event.fraction * 100:3.0f} %  {titled(event)}{measured(event)}")

    def close(self) -> None:
        """Lines leave nothing open."""


class Bar:
    """A progress bar, with each finished phase on a line of its own above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        self._course = Course()
        self._phase = ""
        self._progress: Progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %", markup=False),
            TextColumn("{task.fields[measured]}", markup=False),
            console=Console(markup=False, highlight=False),
            transient=True,
        )
        self._task: TaskID = self._progress.add_task("asking", total=1.0, measured="")
        self._progress.start()

    def see(self, event: MigrationProgress | MigrationNote) -> None:
        if isinstance(event, MigrationNote):
            self._progress.console.print(f"  {clean(event.message)}")
            return
        event = self._course.forward(event)
        if self._phase and event.phase != self._phase:
            self._progress.console.print(f"✓ {TITLES.get(self._phase, clean(self._phase))}")
        self._phase = event.phase
        self._progress.update(
            self._task,
            completed=event.fraction,
            description=clean(titled(event)),
            measured=clean(measured(event)),
        )

    def close(self) -> None:
        self._progress.stop()


class Course:
    """Where a migration has been: readings are held to never go back, in phase, fraction or bytes."""

    def __init__(self) -> None:
        self._last: MigrationProgress | None = None

    def forward(self, event: MigrationProgress) -> MigrationProgress:
        """The reading, or as much of it as does not contradict an earlier one."""
        import msgspec

        last = self._last
        fraction = min(max(event.fraction, 0.0), 1.0)
        if last is not None:
            event = msgspec.structs.replace(
                event,
                phase=max(last.phase, event.phase, key=lambda phase: _ORDER.get(phase, -1)),
                bytes_sent=max(last.bytes_sent, event.bytes_sent),
                round=max(last.round, event.round),
            )
            fraction = max(last.fraction, fraction)
        self._last = msgspec.structs.replace(event, fraction=fraction)
        return self._last


def titled(event: MigrationProgress) -> str:
    title = TITLES.get(event.phase, event.phase)
    if event.round > 1:
        title += f", round {event.round}"
    return f"{title} ({event.note})" if event.note else title


def measured(event: MigrationProgress) -> str:
    """Bytes, rate, dirty rate and ETA, as far as they are known; begins with two spaces unless empty."""
    parts = []
    if event.bytes_sent:
        parts.append(f"{size(event.bytes_sent)} sent")
    if event.bytes_remaining:
        parts.append(f"{size(event.bytes_remaining)} left")
    if event.rate_bytes_per_s:
        parts.append(f"{size(event.rate_bytes_per_s)}/s")
    if event.dirty_rate_bytes_per_s:
        parts.append(f"dirty {size(event.dirty_rate_bytes_per_s)}/s")
    if event.eta_low_s is not None:
        parts.append(f"ETA {expected(event.eta_low_s, event.eta_high_s)}")
    return "  " + " · ".join(parts) if parts else ""


def expected(low_s: float, high_s: float | None) -> str:
    """A range of seconds for people: `3–5 s`, `2–4 min`; without an upper end it may take for ever."""
    if high_s is None:
        return f"{low_s:.0f} s or more"
    low, high = sorted((max(low_s, 0.0), max(high_s, 0.0)))
    if high >= 180:
        return f"{low / 60:.0f}–{high / 60:.0f} min"
    return f"{low:.0f}–{high:.0f} s" if round(low) != round(high) else f"{high:.0f} s"
