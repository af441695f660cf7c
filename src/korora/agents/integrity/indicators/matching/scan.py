"""Look through one stream of bytes: its text in ASCII and UTF-16, and the hashes of the whole.

Promise: `feed` takes pieces of any size; each hit comes once, with the offset of its first byte; memory is
bounded by `block`, whatever the lines look like. Limit: UTF-16 is looked through for ASCII characters, in
little-endian order at even and odd places; other encodings, compressed and encrypted content are not opened
here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from korora.agents.integrity.indicators.matching.known import Known
from korora.agents.integrity.indicators.matching.lane import Found, Lane
from korora.model.indicator import HASHES, Force, Hit

BLOCK: Final = 1 << 20
_SEEN_MAX: Final = 512
_ZEROS: Final = bytes(BLOCK)


class Scan:
    """Of one file, image or snapshot of memory. `digests=False` where the whole has no meaning."""

    def __init__(self, known: Known, *, digests: bool = True, block: int = BLOCK) -> None:
        self._known = known
        self._block = max(2, block - block % 2)
        self._waiting = bytearray()
        self._digests = {kind: _HASHERS[kind]() for kind in known.hashes} if digests else {}
        self._plain = Lane(known)
        self._wide = (Lane(known), Lane(known))  # UTF-16 at even and at odd places
        self._odd = b""  # a byte whose other half has not come yet
        self.size = 0

    def feed(self, data: bytes | bytearray | memoryview) -> list[Hit]:
        """What became certain with these bytes."""
        for digest in self._digests.values():
            digest.update(data)
        self.size += len(data)
        self._waiting += data
        hits: list[Hit] = []
        while len(self._waiting) >= self._block:
            piece = bytes(self._waiting[: self._block])
            del self._waiting[: self._block]
            hits += self._piece(piece)
        return hits

    def gap(self, count: int, *, hashed: bool) -> list[Hit]:
        """As if so many zeros were fed; if not `hashed`, the whole is not compared any more."""
        if not hashed:
            self._digests.clear()
        before = min(count, len(self._waiting) % 2)  # what follows begins at an even place
        hits = self.feed(bytes(before))
        count -= before
        hits += self._piece(bytes(self._waiting)) if self._waiting else []
        self._waiting.clear()
        even = count - count % 2
        for digest in self._digests.values():
            for at in range(0, even, BLOCK):
                digest.update(_ZEROS[: even - at])
        self.size += even
        hits += self._nothing(even) if even else []
        return hits + self.feed(bytes(count % 2))

    def finish(self) -> list[Hit]:
        """The rest, and whether the content itself is known. Nothing may be fed after it."""
        hits = self._piece(bytes(self._waiting)) if self._waiting else []
        self._waiting.clear()
        hits += [_hit(found, "ascii", 1, 0) for found in self._plain.finish()]
        for shift, lane in enumerate(self._wide):
            hits += [_hit(found, "utf-16", 2, shift) for found in lane.finish()]
        for kind, digest in self._digests.items():
            value = digest.hexdigest()
            if value.encode() in self._known.hashes[kind]:
                hits.append(Hit(kind, value, Force.CONTENT, 0, value))
        return hits

    def _piece(self, piece: bytes) -> list[Hit]:
        if piece.count(0) == len(piece):  # as much of memory is
            return self._nothing(len(piece))
        hits = [_hit(found, "ascii", 1, 0) for found in self._plain.feed(piece)]
        for shift, lane in enumerate(self._wide):
            hits += [_hit(found, "utf-16", 2, shift) for found in self._halves(piece, shift, lane)]
        self._odd = piece[-1:]
        return hits

    def _halves(self, piece: bytes, shift: int, lane: Lane) -> Iterator[Found]:
        """The odd places begin with the byte that the piece before left."""
        whole = self._places(piece, shift)
        if b"\0" not in whole:
            yield from lane.gap(len(whole) // 2)
            return
        pairs = np.frombuffer(whole, np.uint8, len(whole) // 2 * 2)
        yield from lane.feed(np.where(pairs[1::2] == 0, pairs[::2], 0).astype(np.uint8).tobytes())

    def _places(self, piece: bytes, shift: int) -> bytes:
        return piece if shift == 0 else self._odd + piece if self._odd else piece[1:]

    def _nothing(self, count: int) -> list[Hit]:
        hits = [_hit(found, "ascii", 1, 0) for found in self._plain.gap(count)]
        hits += [_hit(found, "utf-16", 2, 0) for found in self._wide[0].gap(count // 2)]
        pairs = (count + 1) // 2 if self._odd else (count - 1) // 2
        if self._odd:  # a character whose other half is the first of these zeros
            hits += [_hit(found, "utf-16", 2, 1) for found in self._wide[1].feed(self._odd)]
            pairs -= 1
        hits += [_hit(found, "utf-16", 2, 1) for found in self._wide[1].gap(pairs)]
        self._odd = b"\0"
        return hits


_HASHERS: Final[dict[Any, Callable[[], Any]]] = {
    kind: getattr(hashlib, kind.value) for kind in HASHES
}  # known digests, not signatures: MD5 and SHA-1 are what sources publish


def _hit(found: Found, encoding: str, scale: int, shift: int) -> Hit:
    seen = found.seen[:_SEEN_MAX].decode("utf-8", "backslashreplace")
    return Hit(found.kind, found.value, found.force, found.start * scale + shift, seen, encoding)
