"""How bytes stand in JSON."""

from __future__ import annotations

from base64 import b64encode


def base64_of(data: bytes) -> str:
    return b64encode(data).decode()
