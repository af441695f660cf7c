"""A daemon that says what a test wants said: HTTP over a unix socket, in a thread of this process."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Answer:
    """`body` is JSON for a dict or list, raw bytes, or pieces that are sent as they come and then cut off."""

    body: Any = None
    status: int = 200
    whole: bool = True  # False: the connection is closed without the end of a chunked answer


@dataclass(slots=True)
class Asked:
    method: str
    path: str
    body: Any


Route = Answer | Callable[[Any], Answer]


@dataclass(slots=True)
class FakeDaemon:
    """Answers by `routes`; what is not there is a 404 of the contract. `asked` records every request."""

    name: str
    socket: Path
    routes: dict[tuple[str, str], Route] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def paths(self) -> list[str]:
        return [f"{request.method} {request.path}" for request in self.asked]

    def answer(self, request: Asked) -> Answer:
        self.asked.append(request)
        route = self.routes.get((request.method, request.path))
        if route is None:
            return refusal("unknown-path", f"no {request.path} here", exit_code=2, status=404)
        return route if isinstance(route, Answer) else route(request.body)


def refusal(
    kind: str,
    message: str,
    *,
    remedy: str = "",
    vm_runs_on: str | None = None,
    exit_code: int = 6,
    status: int = 400,
) -> Answer:
    error = {"kind": kind, "message": message, "remedy": remedy, "vm_runs_on": vm_runs_on}
    return Answer({"error": {**error, "exit_code": exit_code}}, status)


def lines(*events: dict[str, Any]) -> Iterator[bytes]:
    """Events as NDJSON, a piece each."""
    return iter([json.dumps(event).encode() + b"\n" for event in events])


@contextmanager
def serving(daemon: FakeDaemon) -> Iterator[FakeDaemon]:
    """Listen on the daemon's socket until the end of the block; the socket's file is gone afterwards."""
    server = _Server(daemon)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.002}, daemon=True)
    thread.start()
    try:
        yield daemon
    finally:
        server.shutdown()
        server.server_close()
        daemon.socket.unlink(missing_ok=True)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, daemon: FakeDaemon) -> None:
        self.fake = daemon
        super().__init__(str(daemon.socket), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves in the middle is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
        """Tests look at `asked`."""

    def _serve(self) -> None:
        length = int(self.headers.get("content-length", 0))
        data = self.rfile.read(length)
        answer = self.server.fake.answer(Asked(self.command, self.path, json.loads(data) if data else None))
        try:
            self._reply(answer)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815 (the base class looks for these names)

    def _reply(self, answer: Answer) -> None:
        self.send_response(answer.status)
        if isinstance(answer.body, Iterable) and not isinstance(answer.body, bytes | dict | list):
            self._stream(answer.body, whole=answer.whole)
            return
        data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, pieces: Iterable[bytes], *, whole: bool) -> None:
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.flush()
        if whole:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = not whole
