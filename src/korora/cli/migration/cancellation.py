"""Ctrl-C during a migration: the first asks the daemon to cancel, and the outcome is still awaited.

Promise: nobody is left guessing; only a third Ctrl-C leaves before it is known where the VM runs.
Limit: past the commit a migration cannot be cancelled; its outcome then says `completed`.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

from korora.cli.render import error_text, warn
from korora.errors import KororaError


class Cancellation:
    """While entered, SIGINT and SIGTERM order a cancellation instead of ending the command."""

    def __init__(self) -> None:
        self._cancel: Callable[[], None] | None = None
        self._presses = 0
        self._before: dict[signal.Signals, object] = {}

    @property
    def asked(self) -> bool:
        return self._presses > 0

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._pressed)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type] # what signal.signal gave us

    def can_cancel(self, cancel: Callable[[], None]) -> None:
        """From now on there is something to cancel; if the order came before, it is carried out now."""
        self._cancel = cancel
        if self.asked:
            self._order(cancel)

    def _pressed(self, number: int, frame: FrameType | None) -> None:
        self._presses += 1
        if self._presses == 1:
            warn("korora: cancelling; waiting to learn where the VM runs")
            if self._cancel is not None:
                self._order(self._cancel)
        elif self._presses == 2:
            warn("korora: still waiting; interrupt once more to leave without knowing where the VM runs")
        else:
            raise KeyboardInterrupt

    def _order(self, cancel: Callable[[], None]) -> None:
        # A thread: the main one is inside a read of the migration's events, which must not be torn.
        threading.Thread(target=_told_if_it_fails, args=(cancel,), daemon=True).start()


def _told_if_it_fails(cancel: Callable[[], None]) -> None:
    try:
        cancel()
    except KororaError as error:
        warn(error_text(error))
