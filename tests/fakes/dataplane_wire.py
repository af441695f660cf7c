"""Two relays on loopback, stand-ins for hypervisors, and a man in the middle who knows the frames."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from korora.agents.dataplane import DestinationRelay, RelayReport, SourceRelay
from korora.errors import KororaError, PeerError
from korora.model.identity import Secret
from korora.protocol.frames import HEADER_BYTES, PREAMBLE_BYTES, StreamKeys, parse_preamble

CHUNK = 4096
STALL_S = 20.0
PATIENCE_S = 15.0

Edit = Callable[[list[bytes]], list[bytes]]  # all frames of one direction, END last


def random_keys(count: int) -> list[StreamKeys]:
    return [
        StreamKeys(n, os.urandom(32), Secret(os.urandom(32)), Secret(os.urandom(32))) for n in range(count)
    ]


class Hypervisor:
    """One end of a migration stream. What it reads is collected by a thread until the end of the bytes."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while part := self.connection.recv(65536):
                self.received += part

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def send_until_refused(self) -> None:
        """Fill every buffer on the way, until the socket is closed or (with a timeout set) takes no more."""
        while True:
            self.connection.sendall(bytes(1 << 20))

    def saw_the_end(self) -> bytes:
        self._reader.join(PATIENCE_S)
        assert not self._reader.is_alive(), "the relay left its hypervisor waiting"
        return bytes(self.received)

    def close_writing(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self._reader.join(PATIENCE_S)
        self.connection.close()


class Rig:
    """Source relay → (proxy) → destination relay. Everything it opened is closed by `close`."""

    def __init__(
        self,
        streams: int = 1,
        *,
        chunk: int = CHUNK,
        stall_s: float = STALL_S,
        source_stall_s: float | None = None,
        destination_keys: Callable[[list[StreamKeys]], list[StreamKeys]] = list,
        forward: Edit | None = None,
        backward: Edit | None = None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="korora-wire-"))
        self.keys = random_keys(streams)
        self.refused: list[PeerError] = []
        self._edits = (forward, backward)
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.arrivals = self._listen_unix(self.folder / "to", streams)
        self._data = socket.create_server(("127.0.0.1", 0))
        self._open.append(self._data)
        self.source = SourceRelay(
            listen_on=self.folder / "from",
            connect=self.connect,
            keys=self.keys,
            chunk_bytes=chunk,
            stall_deadline_s=source_stall_s or stall_s,
        )
        self.destination = DestinationRelay(
            deliver_to=self.folder / "to",
            keys=destination_keys(self.keys),
            chunk_bytes=chunk,
            stall_deadline_s=stall_s,
        )
        self.in_thread(self._serve)

    def start(self) -> None:
        self.destination.start()
        self.source.start()

    def connect(self) -> socket.socket:
        """One TCP connection to the destination, through the man in the middle where one was asked for."""
        near = socket.create_connection(self._data.getsockname(), timeout=PATIENCE_S)
        if self._edits == (None, None):
            return near
        listener = socket.create_server(("127.0.0.1", 0))
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        listener.close()
        near.settimeout(None)
        self._open += [theirs, near]
        preamble = PREAMBLE_BYTES
        self.in_thread(lambda: carry(theirs, near, preamble, self._edits[0]))
        self.in_thread(lambda: carry(near, theirs, 0, self._edits[1]))
        return ours

    def source_hypervisor(self) -> Hypervisor:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self.folder / "from"))
        self._open.append(connection)
        return Hypervisor(connection)

    def destination_hypervisor(self) -> Hypervisor:
        connection, _ = self.arrivals.accept()
        self._open.append(connection)
        return Hypervisor(connection)

    def await_hypervisor(self, answer: bytes | None = None) -> Callable[[], bytes]:
        """A destination's hypervisor that may never be called; the function tells what it got, if anything.

        It hangs up when its bytes end, as QEMU does; with an `answer`, after having sent that instead.
        """
        received = bytearray()

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = self.arrivals.accept()
                self._open.append(connection)
                while part := connection.recv(65536):
                    received.extend(part)
                    if answer is not None:
                        connection.sendall(answer)
                        break
                connection.shutdown(socket.SHUT_WR)

        thread = self.in_thread(serve)

        def got() -> bytes:
            with contextlib.suppress(OSError):
                self.arrivals.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE_S)
            return bytes(received)

        return got

    def keep(self, connection: socket.socket) -> None:
        """Close it with the rest."""
        self._open.append(connection)

    def reports(self) -> tuple[RelayReport, RelayReport]:
        return outcome(self.source), outcome(self.destination)

    def failures(self) -> tuple[KororaError, KororaError]:
        return failure(self.source), failure(self.destination)

    def in_thread(self, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, daemon=True, name="rig")
        self._threads.append(thread)
        thread.start()
        return thread

    def close(self) -> None:
        self.source.abort("the test is over")
        self.destination.abort("the test is over")
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        (self.folder / "to").unlink(missing_ok=True)
        self.folder.rmdir()  # fails if a relay left its path

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._data.accept()
                ticket = parse_preamble(connection.recv(PREAMBLE_BYTES, socket.MSG_WAITALL))
                self.destination.accept(ticket, connection)
            except PeerError as refused:
                self.refused.append(refused)
            except OSError:
                return

    def _listen_unix(self, path: Path, connections: int) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(connections)
        # No settimeout(): a blocking accept() is what shutdown() wakes.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(PATIENCE_S), 0))
        self._open.append(listener)
        return listener


@contextlib.contextmanager
def rig(streams: int = 1, **settings: object) -> Iterator[Rig]:
    made = Rig(streams, **settings)  # type: ignore[arg-type]
    try:
        made.start()
        yield made
    finally:
        made.close()


def carry(reader: socket.socket, writer: socket.socket, untouched: int, edit: Edit | None) -> None:
    """Copy one direction. With `edit`, hold all frames until END, send what it makes of them, hang up."""
    with contextlib.suppress(OSError):
        if edit is None:
            while part := reader.recv(65536):
                writer.sendall(part)
        else:
            writer.sendall(exactly(reader, untouched))
            writer.sendall(b"".join(edit(all_frames(reader))))
    for each, how in ((writer, socket.SHUT_WR), (reader, socket.SHUT_RD)):
        with contextlib.suppress(OSError):
            each.shutdown(how)


def all_frames(reader: socket.socket) -> list[bytes]:
    frames = []
    while True:
        header = exactly(reader, HEADER_BYTES)
        kind, length, _ = struct.unpack(">IIQ", header)
        frames.append(header + exactly(reader, length + 48))
        if kind == 3:
            return frames


def exactly(reader: socket.socket, count: int) -> bytes:
    data = reader.recv(count, socket.MSG_WAITALL) if count else b""
    if len(data) != count:
        raise ConnectionError("the stream ended inside a frame")
    return data


def outcome(relay: SourceRelay | DestinationRelay) -> RelayReport:
    async def wait() -> RelayReport:
        return await asyncio.wait_for(relay.finished(), PATIENCE_S)

    return asyncio.run(wait())


def failure(relay: SourceRelay | DestinationRelay) -> KororaError:
    failed = maybe_failure(relay)
    assert failed is not None, "the relay succeeded"
    return failed


def maybe_failure(relay: SourceRelay | DestinationRelay) -> KororaError | None:
    try:
        outcome(relay)
    except KororaError as failed:
        return failed
    return None
