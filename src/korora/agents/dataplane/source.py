"""The source's side: each connection of the hypervisor to a unix path crosses in its own TCP connection.

Promise: the n-th hypervisor connection is stream n; the path is private and is gone as soon as it has served.
Limit: how a TCP connection is opened is the caller's (`connect`), and so is its deadline.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from korora.agents.dataplane.lane import Lane
from korora.agents.dataplane.relay import Relay
from korora.agents.dataplane.sockets import (
    cut,
    hypervisor_failure,
    peer_failure,
    prepare_tcp,
    prepare_unix,
    send_whole,
)
from korora.errors import PeerError, ToolError
from korora.protocol.frames import Direction, StreamKeys, preamble


class SourceRelay(Relay):
    """Data connections are opened by `start`, ahead of the hypervisor: their set-up is no part of the move.

    `keys[n]` belongs to the n-th connection of the hypervisor; exactly so many are accepted. `connect`
    blocks, is called once per stream from a thread of the relay, and returns a connected TCP socket that
    is the relay's from then on.
    """

    def __init__(
        self,
        *,
        listen_on: Path,
        connect: Callable[[], socket.socket],
        keys: Sequence[StreamKeys],
        chunk_bytes: int,
        stall_deadline_s: float,
    ) -> None:
        super().__init__(
            [
                Lane(
                    key,
                    outward=Direction.FORWARD,
                    attach=_wait_for_hypervisor,
                    chunk_bytes=chunk_bytes,
                    stall_deadline_s=stall_deadline_s,
                )
                for key in keys
            ]
        )
        self._path = listen_on
        self._connect = connect
        self._listener: socket.socket | None = None

    def start(self) -> None:
        """Listen on the path, open the data connections in the background.

        ToolError if the path is unusable or the relay was aborted; nothing is left behind then.
        """
        with self._lock:
            if self._decided:
                raise ToolError("the relay was stopped before it began", kind="aborted")
            listener = self._listener = _listen(self._path, len(self._lanes))
        self._spawn("korora-data-accept", lambda: self._accept_all(listener))
        for lane in self._lanes:
            self._run_lane(lane, before=self._open_connection)

    def _open_connection(self, lane: Lane) -> None:
        try:
            connection = self._connect()
        except OSError as failed:
            raise PeerError(
                f"stream {lane.keys.stream}: no data connection to the other host: {failed}",
                kind="unreachable",
                remedy="see that the destination's address is right and its daemon runs",
            ) from failed
        try:
            prepare_tcp(connection, lane.stall_deadline_s)
            send_whole(connection, memoryview(preamble(lane.keys.ticket)), lane.stall_deadline_s)
        except OSError as failed:
            connection.close()
            raise peer_failure(failed, lane.stall_deadline_s) from failed
        lane.begin(connection)

    def _accept_all(self, listener: socket.socket) -> None:
        try:
            for lane in self._lanes:
                connection, _ = listener.accept()
                prepare_unix(connection, lane.stall_deadline_s)
                lane.hypervisor.give(connection)
        except OSError as failed:
            raise hypervisor_failure(failed) from failed
        finally:
            listener.close()
            self._path.unlink(missing_ok=True)

    def _cut(self) -> None:
        super()._cut()
        if self._listener is not None:
            cut(self._listener)


def _listen(path: Path, connections: int) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)  # left by a daemon that was killed; the folder is ours alone
        listener.bind(str(path))
        path.chmod(0o600)  # before listen(): nobody connects in between
        listener.listen(connections)
    except OSError as failed:
        listener.close()
        raise ToolError(
            f"the relay cannot listen on {path}: {failed}",
            kind="relay-path",
            remedy="see that the folder exists, is writable, and its path is shorter than 100 bytes",
        ) from failed
    return listener


def _wait_for_hypervisor(lane: Lane) -> socket.socket:
    connection = lane.hypervisor.wait_for(lane.stall_deadline_s)
    if connection is None:
        raise PeerError(
            "the other host sent data for a stream that the hypervisor here has not opened",
            kind="unexpected-data",
            remedy="see that both hosts agreed on the same number of streams",
        )
    return connection
