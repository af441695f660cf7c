"""Names and digests. A name is checked where it enters; a digest says its algorithm."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import NewType

from blake3 import blake3

from korora.errors import UsageError

HostName = NewType("HostName", str)
VmName = NewType("VmName", str)
OperatorName = NewType("OperatorName", str)
SessionId = NewType("SessionId", str)  # 128 hex digits: 32 random bytes of each side, the source's first
Digest = NewType("Digest", str)  # "<algorithm>:<hex>"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def checked_name(text: str, what: str) -> str:
    """A name that is safe in a path, a certificate and a log line, or UsageError."""
    if not _NAME.fullmatch(text):
        raise UsageError(
            f"{what} {text!r} is not a usable name",
            kind="bad-name",
            remedy="use 1 to 63 letters, digits, '.', '_' or '-', starting with a letter or digit",
        )
    return text


def sha256(data: bytes) -> Digest:
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def blake3_digest(data: bytes | bytearray | memoryview) -> Digest:
    return Digest("blake3:" + blake3(data).hexdigest())


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """Key material that never prints itself. Compare with hmac.compare_digest on `.reveal()`."""

    _value: bytes

    def reveal(self) -> bytes:
        return self._value

    def __len__(self) -> int:
        return len(self._value)

    def __repr__(self) -> str:
        return f"Secret({len(self._value)} bytes)"
