"""What is made of the content of files: digests of all, pieces for who wants them, and the whole of a few."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fnmatch import translate
from functools import partial
from typing import Final

from korora.adapters.filesystem.disk import words_of
from korora.adapters.filesystem.hashing import NONE, Digests, Hashing
from korora.adapters.filesystem.holes import (
    HOLES_BYTES,
    LONG_BYTES,
    Holes,
    LongDigest,
    Room,
    Run,
    between,
    lead_of,
    length_of,
    no_holes,
)
from korora.model.files import (
    MAX_CONTENT_BYTES,
    MAX_GATHERED_BYTES,
    MAX_PIECE_BYTES,
    Begun,
    Beside,
    Content,
    Ended,
    Entire,
    FileRecord,
    Located,
    Piece,
    Problem,
)

PIECE_BYTES: Final = MAX_PIECE_BYTES
Read = Callable[[int, int], bytes]
Walked = FileRecord | Content | Located | Problem
Tell = Callable[[Begun | Piece | Ended | Entire], None]
FAILURES: Final = (OSError, RuntimeError, ValueError, TypeError, OverflowError)
"""Of readers, on a file system that nobody vouches for."""
TOO_MANY_ZEROS: Final = f"its holes are longer than what is read of them on a disk ({HOLES_BYTES >> 30} GiB)"


class Contents:
    """`patterns`: of the paths whose content is wanted whole. `tell`: takes every file's content in pieces,
    while it is read, before its record; None where nobody wants it. `volume`: the number they are told with.
    `digests`: whether anybody wants them, and what else is in a record beside a file's own facts. `room`: for
    the zeros of holes, of all volumes of the disk. `beside`: which digests, beside BLAKE3, and where.
    """

    def __init__(
        self,
        patterns: Sequence[bytes],
        volume: int = 0,
        tell: Tell | None = None,
        *,
        digests: bool = True,
        room: Room | None = None,
        beside: Sequence[Beside] = (),
    ) -> None:
        self._patterns = re.compile("|".join(translate(one.decode("latin-1")) for one in patterns) or r"(?!)")
        self._volume = volume
        self._tell = tell
        self.digests = digests
        self._room = room or Room()
        self._wanted_beside = beside
        self._algorithms = {one.algorithm for one in beside}
        self._held: list[bytes] | None = None
        self._anything = bool(patterns)
        self._beside = ThreadPoolExecutor(1, "hash")

    @property
    def passes_on(self) -> bool:
        """Whether somebody takes them while they are read."""
        return self._tell is not None

    def lie_in(self, has: Callable[[bytes], bool]) -> None:
        """In a volume of which `has` knows what folders it has. Nobody has said so: all digests are made."""
        self._algorithms = {one.algorithm for one in self._wanted_beside if has(_certain(one.folder))}

    def digested(self, read: Read, size: int, path: bytes, holes: Holes = no_holes) -> tuple[Digests, str]:
        """(BLAKE3, MD5, SHA-256) of all of it, or why there is none; of a long file its tree alone."""
        self._held = None
        if size < 0:
            return self._beyond(0, path, "its size is less than nothing")
        if size <= PIECE_BYTES:
            return self._short(read, size, path)
        if size > LONG_BYTES and self._tell is None:
            return self._sparsely(read, size, holes)
        try:
            fits = self._room.takes(length_of(holes(), size))
        except FAILURES as error:
            return self._beyond(size, path, words_of(error))
        if fits:
            return self._in_pieces(read, size, path)
        lead = partial(_read, read, 0, lead_of(holes(), size), size)
        beyond = self._beyond(size, path, TOO_MANY_ZEROS, lead)
        return self._sparsely(read, size, holes) if size > LONG_BYTES and self.digests else beyond

    def _short(self, read: Read, size: int, path: bytes) -> tuple[Digests, str]:
        if self._tell is None:
            return self._digested(read, size, path)
        whole = b""
        with suppress(*FAILURES):  # it is tried again, piece by piece, and told
            whole = read(0, size) if size else b""
        if len(whole) != size:
            return self._in_pieces(read, size, path)
        self._tell(Entire(self._volume, path, whole))
        if not (self.digests or self._anything):
            return NONE, ""
        return self._digested(lambda *_: whole, size, path)

    def _in_pieces(self, read: Read, size: int, path: bytes) -> tuple[Digests, str]:
        tell = self._tell
        if tell is None:
            return self._digested(read, size, path)

        def read_and_told(offset: int, length: int) -> bytes:
            piece = read(offset, length)
            if piece:
                tell(Piece(piece))
            return piece

        tell(Begun(self._volume, path, size))
        digests, problem = self._digested(read_and_told, size, path)
        tell(Ended(problem))
        return digests, problem

    def _beyond(
        self, size: int, path: bytes, problem: str, lead: Callable[[], Iterable[bytes]] = tuple
    ) -> tuple[Digests, str]:
        """Nothing of it is given out but what comes before its first hole."""
        if self._tell is not None:
            self._tell(Begun(self._volume, path, size))
            with suppress(*FAILURES):
                for piece in lead():
                    self._tell(Piece(piece))
            self._tell(Ended(problem))
        return NONE, problem

    def _sparsely(self, read: Read, size: int, holes: Holes) -> tuple[Digests, str]:
        """The tree of a long file, of which only what is no hole is read."""
        long = LongDigest()
        try:
            for begin, length, zeros in between(holes(), size):
                for piece in _read(read, begin, begin + length, size):
                    long.update(piece)
                long.zeros(zeros)
        except FAILURES as error:
            return NONE, words_of(error)
        return (long.digest(), None, None), ""

    def _digested(self, read: Read, size: int, path: bytes) -> tuple[Digests, str]:
        wanted = size <= MAX_GATHERED_BYTES and self._is_wanted(path)
        parts: list[bytes] = []
        hashing = self._hashing(size)
        try:
            for piece in _read(read, 0, size, size):
                if hashing is not None:
                    hashing.update(piece)
                if wanted:
                    parts.append(piece)
        except FAILURES as error:
            return NONE, words_of(error)
        self._held = parts if wanted else None
        if isinstance(hashing, LongDigest):
            return (hashing.digest(), None, None), ""
        return (hashing.digests() if hashing is not None else NONE), ""

    def _hashing(self, size: int) -> Hashing | LongDigest | None:
        if not self.digests:
            return None
        return LongDigest() if size > LONG_BYTES else Hashing(self._beside, self._algorithms)

    def wanted(self, record: FileRecord) -> Iterator[Content | Problem]:
        """The content of what was digested last, if it is asked for."""
        if self._held is not None and record.kind == "file":
            yield from _parts(record, self._held)
        elif record.kind == "file" and self._is_wanted(record.path):
            where = f"volume {record.volume}: {record.path.decode('utf-8', 'backslashreplace')[:2000]}"
            yield Problem(where, record.problem or f"larger than {MAX_GATHERED_BYTES} bytes")
        self._held = None

    def located(self, record: FileRecord, runs: Iterable[Run]) -> Iterator[Located | Problem]:
        """Where it lies, for who asks for that; nobody does here."""
        yield from ()

    def _is_wanted(self, path: bytes) -> bool:
        return self._anything and self._patterns.match(path.decode("latin-1")) is not None


def _certain(folder: bytes) -> bytes:
    """As much of its path as is no pattern."""
    head, pattern, _ = folder.partition(b"*")
    return head.rpartition(b"/")[0] if pattern else folder


def _read(read: Read, begin: int, end: int, size: int) -> Iterator[bytes]:
    """OSError where less of it can be had."""
    while begin < end:
        piece = read(begin, min(PIECE_BYTES, end - begin))
        if not piece:
            raise OSError(f"only {begin} of {size} bytes can be read")
        begin += len(piece)
        yield piece


def _parts(record: FileRecord, pieces: list[bytes]) -> Iterator[Content]:
    """As few as may be: a piece is at most PIECE_BYTES."""
    at, whole = 0, sum(map(len, pieces)) <= MAX_CONTENT_BYTES
    count = len(pieces) if whole else MAX_CONTENT_BYTES // PIECE_BYTES
    for begin in range(0, max(1, len(pieces)), max(1, count)):
        content = b"".join(pieces[begin : begin + count])
        yield Content(record.volume, record.path, content, at, whole)
        at += len(content)
