"""URLs in one spelling (RFC 3986, section 6), so that two that lead to the same place are the same text.

Scheme and host in lower case, the host by its A-labels, no default port, no dot segments, one spelling of
percent-encoding, no user and password, no fragment. What is in path and query is otherwise left as it is.
"""

from __future__ import annotations

import re
import socket
from typing import Final

from korora.agents.integrity.indicators.domains import a_label

MAX_CHARACTERS: Final = 2048
_PARTS: Final = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]{0,15})://([^/?#\\]*)([^?#]*)(\?[^#]*)?(?:#.*)?", re.DOTALL
)
_AUTHORITY: Final = re.compile(r"(?:.*@)?(\[[0-9A-Fa-f:.]+\]|[^:@\[\]]*)(?::([0-9]{0,5}))?", re.DOTALL)
_PORTS: Final = {"http": "80", "https": "443", "ftp": "21", "ws": "80", "wss": "443"}
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})|%|[^!-~]|[\"<>\\^`{|}]")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_HOST: Final = re.compile(rb"[a-z][a-z0-9+.-]{0,15}://(?:[^/?#\\\s]*@)?(\[[0-9a-f:.]+\]|[^:/?#\\@\s\[\]]*)")


def normalised_url(text: str) -> str | None:
    """The URL in canonical spelling, ASCII; None when it is none, or longer than `MAX_CHARACTERS`."""
    if len(text) > MAX_CHARACTERS:
        return None
    parts = _PARTS.fullmatch(text.strip())
    authority = _AUTHORITY.fullmatch(parts[2]) if parts else None
    if parts is None or authority is None:
        return None
    scheme, host = parts[1].lower(), _host(authority[1])
    if host is None:
        return None
    port = (authority[2] or "").lstrip("0")
    place = host if port in ("", _PORTS.get(scheme)) else f"{host}:{port}"
    query = _escaped(parts[4]) if parts[4] else ""
    url = f"{scheme}://{place}{_path(parts[3])}{query}"
    return url if len(url) <= 4 * MAX_CHARACTERS else None


def host_of(url: bytes) -> bytes:
    """The host of a URL in lower case, as it is written; empty when there is none."""
    match = _HOST.match(url)
    return match[1].rstrip(b".") if match else b""


def _host(written: str) -> str | None:
    if written.startswith("["):
        try:
            return f"[{socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, written[1:-1]))}]"
        except (OSError, ValueError):
            return None
    plain = re.sub(r"%([2-7][0-9A-Fa-f])", lambda match: chr(int(match[1], 16)), written)
    try:
        return socket.inet_ntop(socket.AF_INET, socket.inet_pton(socket.AF_INET, plain))
    except (OSError, ValueError):
        return a_label(plain)


def _path(written: str) -> str:
    kept: list[str] = []
    segments = _escaped(written).split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments and segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def _escaped(written: str) -> str:
    return _ESCAPE.sub(_escape, written)


def _escape(match: re.Match[str]) -> str:
    if match[1]:
        character = chr(int(match[1], 16))
        return character if character in _UNRESERVED else match[0].upper()
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))
