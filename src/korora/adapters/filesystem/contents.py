"""What is made of the content of files: digests of all, pieces for who wants them, and the whole of a few."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fnmatch import translate
from typing import Final

from korora.adapters.filesystem.disk import words_of
from korora.adapters.filesystem.hashing import NONE, Digests, Hashing
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
Run = tuple[int, int]
"""(offset, length) in bytes."""
Walked = FileRecord | Content | Located | Problem
Tell = Callable[[Begun | Piece | Ended | Entire], None]
FAILURES: Final = (OSError, RuntimeError, ValueError, TypeError, OverflowError)
"""Of readers, on a file system that nobody vouches for."""


class Contents:
    """`patterns`: of the paths whose content is wanted whole. `tell`: takes every file's content in pieces,
    while it is read, before its record; None where nobody wants it. `volume`: the number they are told with.
    `digests`: whether anybody wants them, and what else is in a record beside a file's own facts. `beside`:
    which ones, beside BLAKE3, and where.
    """

    def __init__(
        self,
        patterns: Sequence[bytes],
        volume: int = 0,
        tell: Tell | None = None,
        *,
        digests: bool = True,
        beside: Sequence[Beside] = (),
    ) -> None:
        self._patterns = re.compile("|".join(translate(one.decode("latin-1")) for one in patterns) or r"(?!)")
        self._volume = volume
        self._tell = tell
        self.digests = digests
        self._wanted_beside = beside
        self._algorithms = {one.algorithm for one in beside}
        self._held: list[bytes] | None = None
        self._anything = bool(patterns)
        self._beside = ThreadPoolExecutor(1, "hash")

    def lie_in(self, has: Callable[[bytes], bool]) -> None:
        """In a volume of which `has` knows what folders it has. Nobody has said so: all digests are made."""
        self._algorithms = {one.algorithm for one in self._wanted_beside if has(_certain(one.folder))}

    def digested(self, read: Read, size: int, path: bytes) -> tuple[Digests, str]:
        """(BLAKE3, MD5, SHA-256) of all of it, or why there is none."""
        self._held = None
        if self._tell is None:
            return self._digested(read, size, path)
        if size <= PIECE_BYTES:
            whole = b""
            with suppress(*FAILURES):  # it is tried again, piece by piece, and told
                whole = read(0, size) if size else b""
            if len(whole) == size:
                self._tell(Entire(self._volume, path, whole))
                return self._digested(lambda *_: whole, size, path)
        return self._in_pieces(self._tell, read, size, path)

    def _in_pieces(self, tell: Tell, read: Read, size: int, path: bytes) -> tuple[Digests, str]:
        def read_and_told(offset: int, length: int) -> bytes:
            piece = read(offset, length)
            if piece:
                tell(Piece(piece))
            return piece

        tell(Begun(self._volume, path, size))
        digests, problem = self._digested(read_and_told, size, path)
        tell(Ended(problem))
        return digests, problem

    def _digested(self, read: Read, size: int, path: bytes) -> tuple[Digests, str]:
        wanted = size <= MAX_GATHERED_BYTES and self._is_wanted(path)
        parts: list[bytes] = []
        hashing = Hashing(self._beside, self._algorithms) if self.digests else None
        offset = 0
        try:
            while offset < size:
                piece = read(offset, min(PIECE_BYTES, size - offset))
                if not piece:
                    return NONE, f"only {offset} of {size} bytes can be read"
                if hashing is not None:
                    hashing.update(piece)
                offset += len(piece)
                if wanted:
                    parts.append(piece)
        except FAILURES as error:
            return NONE, words_of(error)
        self._held = parts if wanted else None
        return (hashing.digests() if hashing is not None else NONE), ""

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


def _parts(record: FileRecord, pieces: list[bytes]) -> Iterator[Content]:
    """As few as may be: a piece is at most PIECE_BYTES."""
    at, whole = 0, sum(map(len, pieces)) <= MAX_CONTENT_BYTES
    count = len(pieces) if whole else MAX_CONTENT_BYTES // PIECE_BYTES
    for begin in range(0, max(1, len(pieces)), max(1, count)):
        content = b"".join(pieces[begin : begin + count])
        yield Content(record.volume, record.path, content, at, whole)
        at += len(content)
