"""Answers of slow probes, kept while what they depend on stays the same: binary, host kernel, boot."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

from korora.adapters.hypervisor.process import boot_id


def fingerprint(*programs: str) -> str:
    """Changes when a program is replaced, the host boots, or its kernel changes."""
    parts = [boot_id(), os.uname().release]
    for program in programs:
        found = shutil.which(program)
        with contextlib.suppress(OSError):
            status = Path(found or program).stat()
            parts.append(f"{found}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


class Cache:
    """Small texts by name in a directory. What cannot be read is a miss; what cannot be written is lost."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, kind: str, key: str) -> bytes | None:
        try:
            return self._file(kind, key).read_bytes()
        except OSError:
            return None

    def write(self, kind: str, key: str, answer: bytes) -> None:
        with contextlib.suppress(OSError):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = self._directory / f".{kind}-{os.getpid()}.new"
            fresh.write_bytes(answer)
            fresh.replace(self._file(kind, key))

    def _file(self, kind: str, key: str) -> Path:
        return self._directory / f"{kind}-{hashlib.sha256(key.encode()).hexdigest()[:24]}"
