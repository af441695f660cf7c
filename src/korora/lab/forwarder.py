"""A TCP man in the middle: forwards a port to another, and attacks what passes when told to.

Hosts are known by key and name, never by address, so a configuration may point at a forwarder; without faults
it must change nothing that anybody can notice. It lives in the lab's switch namespace: `inside` makes its
sockets there. Limit: two threads per connection; a delay also lowers the throughput.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from korora.lab.tampering import Action, Direction, Editor, Ended, Fault, Sort, Unchanged, editor_of

_TLS_HANDSHAKE = 0x16
_CHUNK = 256 << 10
Inside = Callable[[Callable[[], Any]], Any]


@dataclass(slots=True)
class Connection:
    """One connection as seen from the middle. `number` counts those of its sort from 0."""

    near: socket.socket
    far: socket.socket
    sort: Sort = Sort.ANY
    number: int = -1
    forwarded: dict[Direction, int] = field(default_factory=lambda: dict.fromkeys(Direction, 0))
    struck: list[Fault] = field(default_factory=list)
    over: bool = False  # reset: whatever the pumps still see means nothing

    def reset(self) -> None:
        """End both sides at once, without an orderly close."""
        self.over = True
        for end in (self.near, self.far):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RD)  # wakes its reader, and tells the peer nothing
            end.close()


class Forwarder:
    """Forward `listen` to `target` until `close`. A context manager. `target` may be set anew at any time.

    `editors` makes an editor for each direction of each connection; without it, armed faults decide.
    """

    def __init__(
        self,
        listen: tuple[str, int],
        target: tuple[str, int],
        *,
        inside: Inside = lambda make: make(),
        editors: Callable[[Direction], Editor] | None = None,
    ) -> None:
        self.target = target
        self.delay_s = 0.0
        self._inside = inside
        self._editors = editors
        self._faults: list[Fault] = []
        self._open = threading.Event()  # cleared: everything stalls
        self._open.set()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(Sort, 0)
        self.connections: list[Connection] = []
        self._listener: socket.socket = inside(lambda: socket.create_server(listen, backlog=64))
        threading.Thread(target=self._accept, name="forwarder", daemon=True).start()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._listener.getsockname()[:2]
        return host, port

    def arm(self, *faults: Fault) -> None:
        """Connections that begin from now on meet these faults; each strikes once."""
        with self._lock:
            self._faults.extend(faults)

    def disarm(self) -> None:
        with self._lock:
            self._faults.clear()

    @property
    def struck(self) -> list[Fault]:
        """The faults that have happened."""
        return [fault for connection in self.connections for fault in connection.struck]

    def stall(self) -> None:
        """Hold everything back, on all connections, until `resume`."""
        self._open.clear()

    def resume(self) -> None:
        self._open.set()

    def cut(self) -> None:
        """Reset every connection. New ones are accepted as before."""
        for connection in list(self.connections):
            connection.reset()

    def close(self) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._open.set()
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), name="forwarding", daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        try:
            far = self._inside(lambda: socket.create_connection(self.target, timeout=10))
        except OSError:
            near.close()  # the target is not there: say so as it would
            return
        far.settimeout(None)
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(near, far)
        with self._lock:
            self.connections.append(connection)
        first = self._first_bytes(near)
        self._number(connection, first)
        back = threading.Thread(
            target=self._pump, args=(connection, Direction.RETURN), name="returning", daemon=True
        )
        back.start()
        self._pump(connection, Direction.FORWARD)
        back.join()
        near.close()
        far.close()

    def _first_bytes(self, near: socket.socket) -> bytes:
        try:
            return near.recv(1, socket.MSG_PEEK)
        except OSError:
            return b""

    def _number(self, connection: Connection, first: bytes) -> None:
        connection.sort = Sort.CONTROL if first[:1] == bytes([_TLS_HANDSHAKE]) else Sort.DATA
        with self._lock:
            connection.number = self._counts[connection.sort]
            self._counts[connection.sort] += 1

    def _editor(self, connection: Connection, direction: Direction) -> tuple[Editor, Fault | None]:
        if self._editors:
            return self._editors(direction), None
        with self._lock:
            for fault in self._faults:
                if fault.strikes(connection.sort, connection.number, direction):
                    return editor_of(fault), fault
        return Unchanged(), None

    def _pump(self, connection: Connection, direction: Direction) -> None:
        forward = direction is Direction.FORWARD
        start, end = (connection.near, connection.far) if forward else (connection.far, connection.near)
        editor, fault = self._editor(connection, direction)
        try:
            while (data := start.recv(_CHUNK)) and not connection.over:
                self._hold_back()
                self._send(connection, direction, end, editor.feed(data))
                if fault and editor.struck:
                    self._used(connection, fault)
                    fault = None
            if not connection.over:
                self._send(connection, direction, end, editor.finish())
                end.shutdown(socket.SHUT_WR)
        except Ended as ended:
            if fault:
                self._used(connection, fault)
            self._end(connection, direction, end, ended)
        except OSError:
            connection.reset()  # one side is gone: so is the other

    def _hold_back(self) -> None:
        self._open.wait()
        if self.delay_s:
            time.sleep(self.delay_s)

    def _send(self, connection: Connection, direction: Direction, end: socket.socket, data: bytes) -> None:
        if data:
            end.sendall(data)
            connection.forwarded[direction] += len(data)

    def _end(self, connection: Connection, direction: Direction, end: socket.socket, ended: Ended) -> None:
        with contextlib.suppress(OSError):
            self._send(connection, direction, end, ended.rest)
            if ended.action is Action.CUT:
                connection.reset()
            elif ended.action is Action.TRUNCATE:
                end.shutdown(socket.SHUT_WR)
                self._drain(connection, direction)
            else:
                self._closing.wait()

    def _drain(self, connection: Connection, direction: Direction) -> None:
        """Read on, so that only the receiver notices that the stream has ended."""
        start = connection.near if direction is Direction.FORWARD else connection.far
        while start.recv(_CHUNK):
            pass

    def _used(self, connection: Connection, fault: Fault) -> None:
        connection.struck.append(fault)
        with self._lock, contextlib.suppress(ValueError):
            self._faults.remove(fault)
