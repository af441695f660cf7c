"""One stream of a relay: a TCP connection, a hypervisor connection, and the two directions between them.

Promise: each direction is one thread's loop, with one read, one seal or open, and one write per frame.
Limit: a lane knows nothing of other lanes; order and failure of the whole are the relay's.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from collections.abc import Callable, Iterator
from typing import Final

from korora.agents.dataplane.handover import Handover
from korora.agents.dataplane.sealing import Opener, Sealer
from korora.agents.dataplane.sockets import (
    Closed,
    hypervisor_failure,
    peer_failure,
    receive_whole,
    send_whole,
)
from korora.errors import IntegrityError, KororaError
from korora.model.evidence import StreamRoot
from korora.protocol.frames import NETWORK_REMEDY, PREAMBLE_BYTES, Direction, Kind, StreamKeys

ALIVE_PER_DEADLINE: Final = 4  # an idle direction says so this often within the peer's stall deadline


class Outbound:
    """From this host's hypervisor to the other host."""

    def __init__(self, lane: Lane, direction: Direction) -> None:
        self.payload_bytes = 0
        self.wire_bytes = 0
        self._lane = lane
        self._direction = direction
        self._sealer = Sealer(lane.keys, direction, lane.chunk_bytes)
        self._poll = select.poll()

    def run(self) -> None:
        """Send until the hypervisor closes its side, then the authenticated end."""
        with _located(self._lane, self._direction, self._sealer):
            peer = self._lane.peer.wait()
            hypervisor = self._wait_for_hypervisor(peer)
            self._poll.register(hypervisor, select.POLLIN)
            self._poll.register(peer, 0)  # POLLERR and POLLHUP alone
            while payload_bytes := self._read(hypervisor, peer):
                self._write(peer, self._sealer.data(payload_bytes))
                self.payload_bytes += payload_bytes
            self._write(peer, self._sealer.end())

    def evidence(self) -> StreamRoot:
        return self._sealer.evidence()

    def _wait_for_hypervisor(self, peer: socket.socket) -> socket.socket:
        while (hypervisor := self._lane.hypervisor.wait_for(self._lane.alive_every_s)) is None:
            self._write(peer, self._sealer.alive())
        return hypervisor

    def _read(self, hypervisor: socket.socket, peer: socket.socket) -> int:
        # One read takes what is there and never waits to fill the chunk: the last bytes of a move
        # are downtime.
        while True:
            try:
                return hypervisor.recv_into(self._sealer.space, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._idle(peer)
            except OSError as failed:
                raise hypervisor_failure(failed) from failed

    def _idle(self, peer: socket.socket) -> None:
        """Wait for the hypervisor. Nobody may be reading from the peer now, so its loss is noticed here."""
        ready = self._poll.poll(self._lane.alive_every_s * 1000)
        if not ready:
            self._write(peer, self._sealer.alive())
        if any(fd == peer.fileno() for fd, _ in ready):
            error = peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or errno.ECONNRESET
            lost = OSError(error, "")  # becomes TimeoutError for ETIMEDOUT
            raise peer_failure(lost, self._lane.stall_deadline_s)

    def _write(self, peer: socket.socket, frame: memoryview) -> None:
        try:
            send_whole(peer, frame, self._lane.stall_deadline_s)
        except OSError as failed:
            raise peer_failure(failed, self._lane.stall_deadline_s) from failed
        self.wire_bytes += len(frame)


class Inbound:
    """From the other host to this host's hypervisor. Nothing is delivered before it is authenticated."""

    def __init__(self, lane: Lane, direction: Direction) -> None:
        self.payload_bytes = 0
        self.wire_bytes = 0
        self._lane = lane
        self._direction = direction
        self._opener = Opener(lane.keys, direction, lane.chunk_bytes)

    def run(self) -> None:
        """Deliver until the authenticated end, then close the hypervisor's reading side."""
        with _located(self._lane, self._direction, self._opener):
            peer = self._lane.peer.wait()
            hypervisor = self._lane.attach() if self._lane.eager else None
            kind, payload = self._next(peer)
            while kind is Kind.ALIVE:
                kind, payload = self._next(peer)
            hypervisor = hypervisor or self._lane.attach()
            while kind is not Kind.END:
                if kind is Kind.DATA:
                    self._deliver(hypervisor, payload)
                kind, payload = self._next(peer)
            with contextlib.suppress(OSError):  # it may have left already, having read all it wanted
                hypervisor.shutdown(socket.SHUT_WR)

    def evidence(self) -> StreamRoot:
        return self._opener.evidence()

    def _next(self, peer: socket.socket) -> tuple[Kind, memoryview]:
        opener, deadline_s = self._opener, self._lane.stall_deadline_s
        try:
            receive_whole(peer, opener.header_space, deadline_s)
            body = opener.expect()
            receive_whole(peer, body, deadline_s)
        except (OSError, Closed) as failed:
            raise peer_failure(failed, deadline_s) from failed
        self.wire_bytes += len(opener.header_space) + len(body)
        return opener.open()

    def _deliver(self, hypervisor: socket.socket, payload: memoryview) -> None:
        try:
            send_whole(hypervisor, payload, self._lane.stall_deadline_s)
        except OSError as failed:
            raise hypervisor_failure(failed) from failed
        self.payload_bytes += len(payload)


class Lane:
    """`attach` is called once, by the inbound thread, when there is something for the hypervisor; `eager`: at
    once, because the hypervisor speaks first."""

    def __init__(
        self,
        keys: StreamKeys,
        *,
        outward: Direction,
        attach: Callable[[Lane], socket.socket],
        chunk_bytes: int,
        stall_deadline_s: float,
        eager: bool = False,
    ) -> None:
        self.eager = eager
        self.keys = keys
        self.chunk_bytes = chunk_bytes
        self.stall_deadline_s = stall_deadline_s
        self.alive_every_s = stall_deadline_s / ALIVE_PER_DEADLINE
        self.peer = Handover()
        self.hypervisor = Handover()
        inward = Direction.RETURN if outward is Direction.FORWARD else Direction.FORWARD
        self.outbound = Outbound(self, outward)
        self.inbound = Inbound(self, inward)
        self._outward = outward
        self._attach = attach
        self._preamble_bytes = 0

    def begin(self, connection: socket.socket) -> None:
        """The TCP connection is prepared, its preamble has passed. Too late, it is closed: raises Cut."""
        self._preamble_bytes = PREAMBLE_BYTES
        self.peer.give(connection)

    @property
    def wire_bytes(self) -> int:
        return self._preamble_bytes + self.outbound.wire_bytes + self.inbound.wire_bytes

    def attach(self) -> socket.socket:
        return self._attach(self)

    def farewell(self) -> None:
        """After both ends: nothing may follow. The source hangs up first, the destination waits for that.

        So the destination's move, whose end is downtime, waits for no round trip, and no FIN is needed
        while a direction is open (a forwarder may not know half-closed connections).
        """
        peer = self.peer.wait()
        try:
            if self._outward is Direction.FORWARD:
                follows = peer.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
            else:
                follows = peer.recv(1)
        except BlockingIOError as failed:
            if self._outward is Direction.FORWARD:
                return
            raise peer_failure(failed, self.stall_deadline_s) from failed
        except OSError:
            return  # a reset cannot bring bytes either
        if follows:
            raise IntegrityError(
                f"stream {self.keys.stream}: bytes came after the authenticated end",
                kind="bytes-after-end",
                remedy=NETWORK_REMEDY,
            )

    def cut(self) -> None:
        self.peer.cut()
        self.hypervisor.cut()

    def close(self) -> None:
        self.peer.close()
        self.hypervisor.close()

    def evidence(self) -> tuple[StreamRoot, StreamRoot]:
        """Forward first, on both hosts."""
        roots = (self.outbound.evidence(), self.inbound.evidence())
        return roots if roots[0].direction == Direction.FORWARD else (roots[1], roots[0])


@contextlib.contextmanager
def _located(lane: Lane, direction: Direction, at: Sealer | Opener) -> Iterator[None]:
    """Say in a failure which stream, direction and frame it met."""
    try:
        yield
    except KororaError as failed:
        where = f"stream {lane.keys.stream}, {direction}, frame {at.sequence}"
        raise type(failed)(f"{where}: {failed.message}", kind=failed.kind, remedy=failed.remedy) from failed
