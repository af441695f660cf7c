"""Read what an index says is there, and believe the bytes alone.

Promise: what is handed out was hashed, and has the whole name that was asked for. What was not so is dropped
from the index and told: a reference to bytes that changed, a file that is gone, an own copy that rotted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from korora.adapters.store.chunks import Chunks
from korora.adapters.store.index import Hint, Index, Reference, key_of
from korora.adapters.store.referred import Files, GoneError
from korora.errors import ToolError
from korora.model.stored import Found, Scope, Trouble
from korora.protocol.content_tree import CHUNK_BYTES
from korora.protocol.dedup.names import name_of

KEPT_SHIFT: Final = CHUNK_BYTES.bit_length() - 1
"""An own copy's bytes are from `number << KEPT_SHIFT` on."""


@dataclass(slots=True)
class Fetching:
    """From one scope, by one thread. To be closed."""

    scope: Scope
    index: Index
    chunks: Chunks
    found: list[Found] = field(default_factory=list)
    files: Files = field(default_factory=Files)
    used: set[int] = field(default_factory=set)
    troubles: Counter[Trouble] = field(default_factory=Counter)
    _references: dict[int, Reference | None] = field(default_factory=dict)
    _dropped: list[tuple[int, int]] = field(default_factory=list)
    _changed: Counter[str] = field(default_factory=Counter)

    def close(self) -> None:
        self.files.close()

    def fetch(self, names: Collection[bytes], room: int) -> dict[bytes, bytes]:
        """Those of them that are there, of at most `room` bytes together.

        ToolError or index.DamagedError when the index cannot be asked.
        """
        self._references = {}
        wanted, before = [], b""
        for hint in self.index.find(list(names)):
            _, _, length, name = hint
            if name != before and 0 < length <= room:
                room -= length
                before = name
            if name == before:
                wanted.append(hint)
        got: dict[bytes, bytes] = {}
        for run in _runs(wanted):
            if missing := [hint for hint in run if hint[3] not in got]:
                self._read(missing, got)
        self._note()
        return got

    def look(self, origin: int, parts: Iterable[tuple[int, int, int]]) -> int:
        """How many of an origin's parts (key, place, length) are there; of these only the key is known."""
        sound = 0
        for run in _runs((origin, place, length, _key(key)) for key, place, length in parts):
            got: dict[bytes, bytes] = {}
            self._read(run, got)
            sound += len(got)
        self._note()
        return sound

    def _read(self, run: list[Hint], got: dict[bytes, bytes]) -> None:
        """Neighbours of one origin, in one go."""
        origin, first, _, _ = run[0]
        end = run[-1][1] + run[-1][2]
        try:
            data = self._bytes(origin, first, end - first) or b""
        except OSError:
            return  # cannot be read just now: perhaps later
        for hint in run:
            _, place, length, name = hint
            part = data[place - first : place - first + length]
            if len(part) == length and name_of(part).startswith(name):
                got[name] = part
                self.used.add(origin)
            else:
                self._drop(hint)

    def _bytes(self, origin: int, place: int, length: int) -> bytes | None:
        """None where there is nothing (any more)."""
        if origin not in self._references:
            self._references[origin] = self.index.reference(origin)
        reference = self._references[origin]
        if reference is not None:
            try:
                return self.files.read(reference, place, length)
            except GoneError:
                self._lose(origin, reference)
                return None
        name = self.index.kept(origin, place >> KEPT_SHIFT)
        whole = self.chunks.read(name) if name is not None else None
        at = place % CHUNK_BYTES
        return None if whole is None else whole[at : at + length]

    def _lose(self, origin: int, reference: Reference) -> None:
        self._references[origin] = None
        with suppress(ToolError):
            if self.index.notes.lose(origin):
                self._tell(Trouble.GONE, str(reference.path))

    def _drop(self, hint: Hint) -> None:
        origin, place, _, name_asked = hint
        self._dropped.append((key_of(name_asked), origin))
        if (reference := self._references.get(origin)) is not None:
            self._changed[str(reference.path)] += 1
            return
        name = self.index.kept(origin, place >> KEPT_SHIFT)
        if name is None:
            return  # forgotten meanwhile
        whole = self.chunks.read(name)
        if whole is None or name_of(whole) != name:
            with suppress(ToolError):
                self.index.notes.drop_kept(name)
            with suppress(OSError):
                self.chunks.remove(name)
            self._tell(Trouble.ROTTED, name.hex())

    def _tell(self, trouble: Trouble, what: str, times: int = 1) -> None:
        self.troubles[trouble] += times
        self.found.append(Found(self.scope, trouble, what if times == 1 else f"{what}: {times} parts"))
        with suppress(ToolError):
            self.index.notes.count(trouble, times)

    def _note(self) -> None:
        """A full disk must not keep anybody from what is there."""
        for path, times in self._changed.items():
            self._tell(Trouble.CHANGED, path, times)
        self._changed.clear()
        dropped, self._dropped = self._dropped, []
        if dropped:
            with suppress(ToolError):
                self.index.notes.drop(dropped)


def _key(key: int) -> bytes:
    return key.to_bytes(8, "big", signed=True)


def _runs(wanted: Iterable[Hint]) -> Iterator[list[Hint]]:
    """Neighbours together, of at most a chunk's bytes, and within one chunk of them."""
    run: list[Hint] = []
    of = end = last = -1
    for hint in sorted(wanted):
        origin, place, length, _ = hint
        if not 0 < length <= CHUNK_BYTES or not 0 <= place < 1 << 62:
            continue  # an index that lies
        if run and (origin != of or place != end or place + length > last):
            yield run
            run = []
        if not run:
            last = ((place >> KEPT_SHIFT) + 1) << KEPT_SHIFT
        of, end = origin, place + length
        run.append(hint)
    if run:
        yield run
