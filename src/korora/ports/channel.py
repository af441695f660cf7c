"""The control channel between two hosts: mutually authenticated, ordered, whole messages."""

from __future__ import annotations

from typing import Protocol

from korora.model.identity import HostName, Secret


class Channel(Protocol):
    """Raises PeerError when the other side is gone, silent past the deadline, or not who it must be."""

    @property
    def peer(self) -> HostName:
        """Whom the TLS certificate names, verified against the site authority."""
        ...

    @property
    def peer_certificate(self) -> bytes:
        """DER."""
        ...

    @property
    def own_certificate(self) -> bytes: ...

    @property
    def tls_version(self) -> str: ...

    @property
    def tls_group(self) -> str: ...

    def export_key(self, label: str, context: bytes, length: int = 32) -> Secret:
        """RFC 8446, 7.5; RFC 9266: the same on both sides of this channel and nowhere else."""
        ...

    async def send(self, message: bytes) -> None: ...

    async def receive(self, deadline_s: float | None = None) -> bytes: ...

    async def close(self) -> None: ...
