"""Where data connections arrive: each ticket leads to whoever waits for it, and only once."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Protocol

from korora.errors import PeerError


class Taker(Protocol):
    """The destination's relay."""

    def accept(self, ticket: bytes, connection: socket.socket) -> None: ...


class TicketReception:
    """Implements migration's Reception. All methods run on the event loop."""

    def __init__(self) -> None:
        # Tickets are exported secrets of 32 bytes: finding one by hash tells a stranger nothing useful.
        self._waiting: dict[bytes, Taker] = {}

    def expect(self, tickets: Iterable[bytes], relay: Taker) -> None:
        for ticket in tickets:
            self._waiting[ticket] = relay

    def forget(self, tickets: Iterable[bytes]) -> None:
        for ticket in tickets:
            self._waiting.pop(ticket, None)

    def arrived(self, ticket: bytes, connection: socket.socket) -> None:
        """Hand a connection over. PeerError, and it is closed, when nobody waits for its ticket."""
        taker = self._waiting.pop(ticket, None)
        if taker is None:
            connection.close()
            raise PeerError(
                "a data connection showed a ticket that nobody here waits for", kind="unknown-ticket"
            )
        taker.accept(ticket, connection)
