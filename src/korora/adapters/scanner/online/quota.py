"""How often a service was asked, kept on disk, so that no run of the program asks more than was agreed.

Promise: a question is counted before it is asked, for all processes that share the file. Limit: counts by
this machine's clock; a clock that was set back makes the quota smaller, never larger.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from korora.adapters.sqlite import connected, transaction

_MINUTE_S: Final = 60
_DAY_S: Final = 86_400
_WAIT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Quota:
    path: Path
    service: str
    per_minute: int
    per_day: int

    def spend(self, now: float) -> str:
        """Count one question. "" when it may be asked, otherwise why not: then nothing is counted."""
        try:
            with closing(connected(self.path, waits_s=_WAIT_S)) as database:
                return self._spend(database, now)
        except (OSError, sqlite3.Error) as error:
            return f"its quota cannot be kept: {error}"

    def _spend(self, database: sqlite3.Connection, now: float) -> str:
        database.execute("CREATE TABLE IF NOT EXISTS asked (service TEXT NOT NULL, at REAL NOT NULL) STRICT")
        with transaction(database):
            refused = self._refused(database, now)
            if not refused:
                database.execute("DELETE FROM asked WHERE at <= ?", (now - _DAY_S,))
                database.execute("INSERT INTO asked VALUES (?, ?)", (self.service, now))
        return refused

    def _refused(self, database: sqlite3.Connection, now: float) -> str:
        for seconds, most, span in ((_MINUTE_S, self.per_minute, "minute"), (_DAY_S, self.per_day, "day")):
            [(count,)] = database.execute(
                "SELECT count(*) FROM asked WHERE service = ? AND at > ?", (self.service, now - seconds)
            )
            if count >= most:
                return f"its quota of {most} a {span} is spent"
        return ""
