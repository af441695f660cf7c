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


@dataclass(frozen=True, slots=True)
class _Wanted:
    name: bytes
    hint: Hint

    @property
    def end(self) -> int:
        return self.hint.place + self.hint.length


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
        wanted = []
        for name, hints in self.index.find(list(names)).items():
            if hints[0].length <= room:
                room -= max(0, hints[0].length)
                wanted += [_Wanted(name, hint) for hint in hints]
        got: dict[bytes, bytes] = {}
        for run in _runs(wanted):
            missing = [one for one in run if one.name not in got]
            if missing:
                self._read(missing, got)
        self._note()
        return got

    def look(self, origin: int, parts: Iterable[tuple[int, int, int]]) -> int:
        """How many of an origin's parts (key, place, length) are there; of these only the key is known."""
        sound = 0
        wanted = [_Wanted(key.to_bytes(8, "big", signed=True), Hint(origin, *at)) for key, *at in parts]
        for run in _runs(wanted):
            got: dict[bytes, bytes] = {}
            self._read(run, got)
            sound += len(got)
        self._note()
        return sound

    def _read(self, run: list[_Wanted], got: dict[bytes, bytes]) -> None:
        """Neighbours of one origin, in one go. Nothing is handed out twice as long as it may be."""
        first, length = run[0].hint, run[-1].end - run[0].hint.place
        try:
            data = memoryview(self._bytes(first.origin, first.place, length) or b"")
        except OSError:
            return  # cannot be read just now: perhaps later
        for one in run:
            at = one.hint.place - first.place
            part = data[at : at + one.hint.length]
            if len(part) == one.hint.length and name_of(part).startswith(one.name):
                got[one.name] = bytes(part)
                self.used.add(first.origin)
            else:
                self._drop(one)

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
            if self.index.lose(origin):
                self._tell(Trouble.GONE, str(reference.path))

    def _drop(self, one: _Wanted) -> None:
        origin = one.hint.origin
        self._dropped.append((key_of(one.name), origin))
        if (reference := self._references.get(origin)) is not None:
            self._changed[str(reference.path)] += 1
            return
        name = self.index.kept(origin, one.hint.place >> KEPT_SHIFT)
        if name is None:
            return  # forgotten meanwhile
        whole = self.chunks.read(name)
        if whole is None or name_of(whole) != name:
            self.index.drop_kept(name)
            self.chunks.remove(name)
            self._tell(Trouble.ROTTED, name.hex())

    def _tell(self, trouble: Trouble, what: str, times: int = 1) -> None:
        self.troubles[trouble] += times
        self.found.append(Found(self.scope, trouble, what if times == 1 else f"{what}: {times} parts"))
        with suppress(ToolError):
            self.index.count(trouble, times)

    def _note(self) -> None:
        """A full disk must not keep anybody from what is there."""
        for path, times in self._changed.items():
            self._tell(Trouble.CHANGED, path, times)
        self._changed.clear()
        dropped, self._dropped = self._dropped, []
        if dropped:
            with suppress(ToolError):
                self.index.drop(dropped)


def _runs(wanted: Iterable[_Wanted]) -> Iterator[list[_Wanted]]:
    """Neighbours together, of at most a chunk's bytes, and within one chunk of them."""
    run: list[_Wanted] = []
    for one in sorted(wanted, key=lambda one: (one.hint.origin, one.hint.place, one.hint.length)):
        hint = one.hint
        if not 0 < hint.length <= CHUNK_BYTES or not 0 <= hint.place < 1 << 62:
            continue  # an index that lies
        if run and not _joins(run, one):
            yield run
            run = []
        run.append(one)
    if run:
        yield run


def _joins(run: list[_Wanted], one: _Wanted) -> bool:
    first, last = run[0].hint, run[-1]
    return (
        one.hint.origin == first.origin
        and one.hint.place == last.end
        and one.end <= ((first.place >> KEPT_SHIFT) + 1) << KEPT_SHIFT
    )
