"""The digests of a file's content, while it is read."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from blake3 import blake3

Digests = tuple[str | None, str | None, str | None]
"""BLAKE3, MD5 and SHA-256, which package databases have, in hex."""
NONE: Final[Digests] = (None, None, None)
_APART_BYTES: Final = 1 << 18
"""So much and more is worth another thread."""


class Hashing:
    """`beside`: another thread, for the slowest of them."""

    def __init__(self, beside: ThreadPoolExecutor) -> None:
        self._beside = beside
        self._blake3 = blake3()
        self._md5, self._sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        self._slowest: Future[None] | None = None

    def update(self, piece: bytes) -> None:
        if self._slowest is not None:
            self._slowest.result()
        self._slowest = self._beside.submit(self._md5.update, piece) if len(piece) >= _APART_BYTES else None
        if self._slowest is None:
            self._md5.update(piece)
        self._blake3.update(piece)
        self._sha256.update(piece)

    def digests(self) -> Digests:
        if self._slowest is not None:
            self._slowest.result()
        return self._blake3.hexdigest(), self._md5.hexdigest(), self._sha256.hexdigest()
