"""Hand a socket from the thread that brings it to the threads that wait for it.

Promise: a wait ends when the socket comes, when time is up, or at once when the relay is cut.
Limit: closing is left to the last user, so no thread meets a file number that means something else by now.
"""

from __future__ import annotations

import socket
import threading

from korora.agents.dataplane.sockets import cut


class Cut(Exception):  # noqa: N818  not an error of its own; the reason is the relay's
    """The relay ended while this thread waited."""


class Handover:
    """A socket that one thread brings and others wait for; closed when brought too late."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._socket: socket.socket | None = None
        self._over = False

    def give(self, connection: socket.socket) -> None:
        with self._changed:
            if self._over:
                connection.close()
                raise Cut
            self._socket = connection
            self._changed.notify_all()

    def wait(self) -> socket.socket:
        """The socket, however long it takes. Raises Cut."""
        while (connection := self.wait_for(None)) is None:
            pass
        return connection

    def wait_for(self, timeout_s: float | None) -> socket.socket | None:
        """The socket, or None when time is up. Raises Cut."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or self._socket is not None, timeout_s)
            if self._over:
                raise Cut
            return self._socket

    def cut(self) -> None:
        with self._changed:
            self._over = True
            if self._socket is not None:
                cut(self._socket)
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._over = True
            if self._socket is not None:
                self._socket.close()
            self._changed.notify_all()
