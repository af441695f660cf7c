"""A `korora migrate` as somebody at a terminal lives it: what it says while it runs, Ctrl-C, how it ended."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Ended:
    """A `korora migrate --json` that has ended."""

    exit_code: int
    lines: list[dict[str, Any]]
    stderr: str

    @property
    def outcome(self) -> dict[str, Any]:
        return self.lines[-1]

    @property
    def error(self) -> dict[str, Any]:
        error = self.outcome["error"]
        assert error, self.outcome
        return dict(error)

    @property
    def kind(self) -> str:
        return str(self.error["kind"])


class Order:
    """A `korora migrate --json` under way. Its lines, and what it says to people, are read as they come."""

    def __init__(self, words: list[str]) -> None:
        self._process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self._lines: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._over = False
        self.stderr = ""
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read, self._hear)]
        for reader in self._readers:
            reader.start()

    @property
    def is_connected(self) -> bool:
        """Whether it has a connection to a daemon now."""
        for fd in Path(f"/proc/{self._process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                if str(fd.readlink()).startswith("socket:"):
                    return True
        return False

    def until_phase(self, *phases: str, deadline_s: float = 60.0) -> str:
        """Wait for the first line of one of these phases, and return which; "" when it ended before."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or bool(self._seen(phases)), deadline_s)
            return self._seen(phases)

    def end(self) -> None:
        """Cancel it if it is under way still, and wait for its end: a failed test leaves none behind."""
        if self._process.poll() is None:
            self.interrupt()
            self.ended()

    def interrupt(self) -> None:
        """As Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def ended(self, deadline_s: float = 180.0) -> Ended:
        try:
            code = self._process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        for reader in self._readers:
            reader.join(60)
        return Ended(code, self._lines, self.stderr)

    def _seen(self, phases: tuple[str, ...]) -> str:
        return next((str(line["phase"]) for line in self._lines if line.get("phase") in phases), "")

    def _hear(self) -> None:
        assert self._process.stderr
        for line in self._process.stderr:
            self.stderr += line

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(json.loads(line))
                self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()
