"""HTTP over a daemon's unix socket: bounded answers, and every failure told as a KororaError.

Promise: no exception of httpx, msgspec or the socket leaves this module. Limit: the socket's file
permissions are all the authentication there is; whoever may open it may order the daemon about.
"""

from __future__ import annotations

import errno
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec

from korora.errors import ExitCode, KororaError, PeerError, ToolError, UsageError, error_of

MAX_ANSWER_BYTES = 256 * 1024 * 1024  # the whole log of a busy host fits
MAX_LINE_BYTES = 4 * 1024 * 1024
CONNECT_S = 5.0

T = TypeVar("T")


class _Failure(msgspec.Struct):
    message: str
    kind: str = "daemon"
    remedy: str = ""
    vm_runs_on: str | None = None
    exit_code: int = ExitCode.TOOL


class _Refusal(msgspec.Struct):
    error: _Failure


class ConnectionLostError(PeerError):
    """The daemon was there and then was not; what it had begun may go on."""


class Transport:
    """One connection pool to one daemon."""

    def __init__(self, socket: Path, host: str) -> None:
        self.socket = socket
        self.host = host
        # The context trusts nobody and is never used: there is no TLS on a unix socket. Giving one spares
        # the 20 ms that loading the system's certificates takes.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket), verify=context),
            base_url="http://daemon",
            headers={"accept": "application/json"},
        )

    def close(self) -> None:
        self._http.close()

    def call(
        self, method: str, path: str, answer: type[T], *, body: Any = None, deadline_s: float = 30.0
    ) -> T:
        """One request, one answer of that shape. `deadline_s` bounds each silence, not the whole."""
        data = self._answer(method, path, body, deadline_s)
        try:
            return msgspec.json.decode(data, type=answer)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise self._garbage(f"{method} {path}", error) from error

    def order(self, method: str, path: str, body: Any = None) -> None:
        """Ask for something that has no answer but that it was understood."""
        self._answer(method, path, body, 30.0)

    def read(self, path: str, *, deadline_s: float = 30.0) -> bytes:
        """The bytes of a document, unparsed."""
        return self._answer("GET", path, None, deadline_s)

    def lines(
        self, path: str, *, deadline_s: float, method: str = "GET", limit: int = MAX_LINE_BYTES
    ) -> Iterator[bytes]:
        """The whole lines of a streamed answer, each of at most about `limit` bytes; ConnectionLostError when
        it ends within one."""
        with self._request(method, path, None, deadline_s) as response:
            if response.is_error:
                self._raise_if_refused(response, _bounded(response, MAX_ANSWER_BYTES))
            rest = bytearray()
            for piece in response.iter_bytes():
                first, *more = piece.split(b"\n")
                rest += first
                if len(rest) > limit:
                    raise self._garbage(path, "a line that does not end")
                if more:
                    yield bytes(rest)
                    yield from more[:-1]
                    rest = bytearray(more[-1])
            if rest:
                raise self.lost("its answer broke off in the middle of a line")

    def _answer(self, method: str, path: str, body: Any, deadline_s: float) -> bytes:
        with self._request(method, path, body, deadline_s) as response:
            data = _bounded(response, MAX_ANSWER_BYTES)
            self._raise_if_refused(response, data)
            return data

    @contextmanager
    def _request(self, method: str, path: str, body: Any, deadline_s: float) -> Iterator[httpx.Response]:
        content = None if body is None else msgspec.json.encode(body)
        headers = {} if body is None else {"content-type": "application/json"}
        timeout = httpx.Timeout(deadline_s, connect=CONNECT_S)
        try:
            with self._http.stream(
                method, path, content=content, headers=headers, timeout=timeout
            ) as response:
                yield response
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise self._unreachable(error) from error
        except httpx.TimeoutException as error:
            raise self.lost(f"it said nothing for {deadline_s:.0f} s") from error
        except (httpx.TransportError, httpx.StreamError) as error:
            raise self.lost(str(error) or type(error).__name__) from error
        except httpx.HTTPError as error:
            raise self._garbage(path, error) from error

    def _raise_if_refused(self, response: httpx.Response, data: bytes) -> None:
        if not response.is_error:
            return
        try:
            failure = msgspec.json.decode(data, type=_Refusal).error
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            raise self._garbage(response.url.path, f"HTTP status {response.status_code}") from None
        runs_on = self.host if failure.vm_runs_on == "here" else failure.vm_runs_on
        raise error_of(failure.exit_code, failure.kind, failure.message, failure.remedy, runs_on)

    def _unreachable(self, error: Exception) -> KororaError:
        code = _errno(error)
        where = f"the daemon of host {self.host!r} does not answer at {self.socket}"
        start = f"start it there: korora hostd --config hostd.toml; or correct `api` of [hosts.{self.host}]"
        match code:
            case errno.ENOENT | errno.ENOTDIR:
                return ToolError(f"{where}: there is no socket", kind="daemon-absent", remedy=start)
            case errno.ECONNREFUSED:
                return ToolError(f"{where}: the socket is stale", kind="daemon-absent", remedy=start)
            case errno.EACCES | errno.EPERM:
                remedy = "run as root, or as a user who may open that socket"
                return ToolError(f"{where}: permission denied", kind="daemon-permission", remedy=remedy)
        if code is None and "path too long" in str(error):
            return UsageError(
                f"{self.socket}: too long for a unix socket",
                kind="bad-configuration",
                remedy="choose a folder with a shorter name (107 bytes at most)",
            )
        return ToolError(f"{where}: {error}", kind="daemon-absent", remedy=start)

    def lost(self, why: str) -> ConnectionLostError:
        """The error to raise when an answer ended before it was whole."""
        return ConnectionLostError(
            f"the connection to the daemon of host {self.host!r} was lost: {why}",
            kind="daemon-lost",
            remedy=f"look at the daemon's log on {self.host}, then ask again",
        )

    def _garbage(self, what: str, why: object) -> PeerError:
        return PeerError(
            f"the daemon of host {self.host!r} gave an answer to {what} that is not in the contract: {why}",
            kind="daemon-answer",
            remedy=f"see that {self.socket} belongs to korora hostd, of the same version as this command",
        )


def _bounded(response: httpx.Response, limit: int) -> bytes:
    data = bytearray()
    for piece in response.iter_bytes():
        data += piece
        if len(data) > limit:
            raise PeerError(
                f"the daemon's answer is longer than {limit} bytes",
                kind="daemon-answer",
                remedy="see that the socket belongs to korora hostd",
            )
    return bytes(data)


def _errno(error: BaseException | None) -> int | None:
    """The system's reason, which httpx and httpcore chain below their own exceptions."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        error = error.__cause__ or error.__context__
    return None
