"""What a reader notes in an index on its way: what was used, what was not there.

Promise: waits for no other writer. Limit: so a note may be lost (ToolError(kind="store-busy")), and will be
made again by the next reader who finds it so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from korora.adapters.store.lines import Line
from korora.model.stored import Kind, Trouble


@dataclass(frozen=True, slots=True)
class Notes:
    _line: Line

    def close(self) -> None:
        self._line.close()

    def drop_kept(self, name: bytes) -> None:
        """Of every origin. Its parts are dropped where they are met."""
        with self._line.transaction() as database:
            rows = database.execute(
                "DELETE FROM kept WHERE name = ? RETURNING length, origin", (name,)
            ).fetchall()
            database.executemany("UPDATE origin SET size = size - ? WHERE number = ?", rows)

    def drop(self, parts: Iterable[tuple[int, int]]) -> None:
        """(key, origin) of each."""
        with self._line.transaction() as database:
            for key, origin in parts:
                done = database.execute("DELETE FROM part WHERE key = ? AND origin = ?", (key, origin))
                database.execute(
                    "UPDATE origin SET entries = entries - ? WHERE number = ?", (done.rowcount, origin)
                )

    def lose(self, origin: int) -> bool:
        """Quickly: its parts are dropped where they are met, or by `forget`. Whether it was there."""
        with self._line.used() as database:
            done = database.execute("DELETE FROM origin WHERE number = ?", (origin,))
            return done.rowcount > 0

    def use(self, origins: Iterable[int], now: int) -> None:
        """What was learnt has had something for another VM: that one is here, and asks no more."""
        query = """UPDATE origin SET used_at = max(used_at, ?), kind = CASE kind WHEN ? THEN ? ELSE kind END
            WHERE number = ?"""
        with self._line.transaction() as database:
            database.executemany(query, [(now, Kind.LEARNT.value, Kind.FOUND.value, one) for one in origins])

    def count(self, trouble: Trouble, more: int = 1) -> None:
        query = """INSERT INTO counter VALUES (?1, ?2)
            ON CONFLICT (what) DO UPDATE SET count = count + excluded.count"""
        with self._line.used() as database:
            database.execute(query, (trouble.value, more))
