"""The digests of a file's content, while it is read: BLAKE3, and what else is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from blake3 import blake3

Digests = tuple[str | None, str | None, str | None]
"""BLAKE3, MD5 and SHA-256, which package databases have, in hex; None of what was not asked for."""
NONE: Final[Digests] = (None, None, None)
_APART_BYTES: Final = 1 << 18
"""So much and more is worth another thread."""


class Hashing:
    """`beside`: another thread, for the slowest of them. `algorithms`: beside BLAKE3."""

    def __init__(self, beside: ThreadPoolExecutor, algorithms: Collection[str]) -> None:
        self._beside = beside
        self._blake3 = blake3()
        self._md5 = hashlib.md5(usedforsecurity=False) if "md5" in algorithms else None
        self._sha256 = hashlib.sha256() if "sha256" in algorithms else None
        self._slowest: Future[None] | None = None

    def update(self, piece: bytes) -> None:
        if self._slowest is not None:
            self._slowest.result()
            self._slowest = None
        if self._md5 is not None and len(piece) >= _APART_BYTES:
            self._slowest = self._beside.submit(self._md5.update, piece)
        elif self._md5 is not None:
            self._md5.update(piece)
        self._blake3.update(piece)
        if self._sha256 is not None:
            self._sha256.update(piece)

    def digests(self) -> Digests:
        if self._slowest is not None:
            self._slowest.result()
        md5 = self._md5.hexdigest() if self._md5 is not None else None
        sha256 = self._sha256.hexdigest() if self._sha256 is not None else None
        return self._blake3.hexdigest(), md5, sha256
