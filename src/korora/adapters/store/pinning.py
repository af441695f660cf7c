"""Bytes that a session was promised, held in memory until it used them.

Promise: what is held cannot change, rot or be collected; never more than the room that was given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import structlog

from korora.adapters.store.shelf import Shelf
from korora.errors import ToolError
from korora.model.stored import Found

_log = structlog.get_logger(__name__)


class Held:
    """Implements `ports.content_store.Pins`; for one thread."""

    def __init__(self, shelves: Sequence[Shelf], room: int) -> None:
        self._shelves = shelves
        self._room = room
        self._held: dict[bytes, bytes] = {}
        self._times: Counter[bytes] = Counter()

    def pin(self, names: Sequence[bytes]) -> list[bool]:
        wanted = dict.fromkeys(name for name in names if name not in self._held)
        for shelf in self._shelves:
            if not wanted or self._room <= 0:
                break
            try:
                got = shelf.fetch(wanted.keys(), self._room)
            except ToolError as error:
                # The source sends it, then: no reason to stop a migration.
                _log.warning("content store", scope=str(shelf.scope), kind=error.kind, problem=error.message)
                continue
            for name, content in got.items():
                if len(content) <= self._room:
                    self._held[name] = content
                    self._room -= len(content)
                    del wanted[name]
        self._times.update(name for name in names if name in self._held)
        return [name in self._held for name in names]

    def content(self, name: bytes) -> bytes:
        return self._held[name]

    def release(self, names: Iterable[bytes]) -> None:
        for name in names:
            if name in self._held:
                self._times[name] -= 1
                if self._times[name] <= 0:
                    self._room += len(self._held.pop(name))
                    del self._times[name]

    def found(self) -> list[Found]:
        return [one for shelf in self._shelves for one in shelf.found()]
