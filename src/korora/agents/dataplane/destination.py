"""The destination's side: data connections arrive by ticket, each is delivered to the hypervisor's unix path.

Promise: the hypervisor is connected in the order of the streams, and each only when there is something
for it (QEMU reads the first bytes of a new multifd channel in its main loop, and would not answer meanwhile).
Limit: who listens on TCP and reads the preamble is the caller.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from korora.agents.dataplane.handover import Cut
from korora.agents.dataplane.lane import Lane
from korora.agents.dataplane.relay import Relay
from korora.agents.dataplane.sockets import peer_failure, prepare_tcp, prepare_unix
from korora.errors import PeerError, ToolError
from korora.protocol.frames import Direction, StreamKeys, same_ticket

_RETRY_S: Final = 0.02


class DestinationRelay(Relay):
    """`deliver_to` is where the hypervisor listens; `keys[n]` belongs to its n-th connection.

    `eager`: it is connected as soon as the data connection is there, as a server that speaks first must be.
    """

    def __init__(
        self,
        *,
        deliver_to: Path,
        keys: Sequence[StreamKeys],
        chunk_bytes: int,
        stall_deadline_s: float,
        eager: bool = False,
    ) -> None:
        super().__init__(
            [
                Lane(
                    key,
                    outward=Direction.RETURN,
                    attach=self._connect_in_turn,
                    chunk_bytes=chunk_bytes,
                    stall_deadline_s=stall_deadline_s,
                    eager=eager,
                )
                for key in keys
            ]
        )
        self._path = deliver_to
        self._turn = threading.Condition()
        self._connected = 0
        self._waiting: list[Lane] = []

    def start(self) -> None:
        """Begin to accept tickets. ToolError if the relay was aborted."""
        with self._lock:
            if self._decided:
                raise ToolError("the relay was stopped before it began", kind="aborted")
            self._waiting = list(self._lanes)

    def accept(self, ticket: bytes, connection: socket.socket) -> None:
        """Take over a blocking TCP socket whose preamble named `ticket`. Never blocks; safe from any thread.

        PeerError, and the socket is closed, for a ticket that is unknown, used, or of a relay that has ended.
        """
        lane = self._redeem(ticket)
        if lane is None:
            connection.close()
            raise PeerError(
                "a data connection showed a ticket that is unknown or used",
                kind="unknown-ticket",
                remedy="if this repeats, find who else connects to this port",
            )
        try:
            prepare_tcp(connection, lane.stall_deadline_s)
            lane.begin(connection)
        except OSError as failed:
            connection.close()
            lost = peer_failure(failed, lane.stall_deadline_s)
            self._fail(lost)
            raise lost from failed
        except Cut:
            return  # stopped meanwhile; the socket is closed and the reason known
        self._run_lane(lane)

    def _redeem(self, ticket: bytes) -> Lane | None:
        with self._lock:
            if self._decided:
                return None
            for lane in self._waiting:
                if same_ticket(lane.keys.ticket, ticket):
                    self._waiting.remove(lane)
                    return lane
            return None

    def _connect_in_turn(self, lane: Lane) -> socket.socket:
        self._await_turn(lane)
        connection = self._connect(lane)
        with self._turn:
            self._connected += 1
            self._turn.notify_all()
        lane.hypervisor.give(connection)
        return connection

    def _await_turn(self, lane: Lane) -> None:
        place = self._lanes.index(lane)
        with self._turn:
            came = self._turn.wait_for(
                lambda: self._decided or self._connected == place, lane.stall_deadline_s
            )
        if self._decided:
            raise Cut
        if not came:
            raise PeerError(
                f"the stream before stream {lane.keys.stream} did not begin",
                kind="stalled",
                remedy="see that the network carries every data connection",
            )

    def _connect(self, lane: Lane) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        give_up_at = time.monotonic() + lane.stall_deadline_s
        try:
            while not _try_connect(connection, self._path, give_up_at):
                with self._turn:
                    if self._turn.wait_for(lambda: self._decided, _RETRY_S):
                        raise Cut
            prepare_unix(connection, lane.stall_deadline_s)
        except (OSError, Cut) as failed:
            connection.close()
            if isinstance(failed, Cut):
                raise
            raise ToolError(
                f"the hypervisor does not listen on {self._path}: {failed}",
                kind="hypervisor-unreachable",
                remedy="look into the hypervisor's log on this host",
            ) from failed
        return connection

    def _cut(self) -> None:
        super()._cut()
        with self._turn:
            self._turn.notify_all()


def _try_connect(connection: socket.socket, path: Path, give_up_at: float) -> bool:
    """Whether the listener took it; False while its backlog is full (unix(7): EAGAIN)."""
    try:
        connection.connect(str(path))
    except BlockingIOError:
        if time.monotonic() > give_up_at:
            raise
        return False
    return True
