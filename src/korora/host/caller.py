"""Who asks: the kernel says which account is at the other end of the API's socket.

Promise: the account that runs the daemon, and root, may do everything; another one only what the policies
let its operator (`account` in authorization.toml) do: to watch, to cancel, and to hand in what is signed.
Limit: it is the account that counts, not the person at its keyboard.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import struct
from typing import Final, TypeAlias

from fastapi import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from korora.errors import RefusedError
from korora.host.services import Operators
from korora.model.identity import OperatorName

Asker: TypeAlias = OperatorName | None
"""None: an administrator."""
_PEER: Final = struct.Struct("3i")  # struct ucred: process, user, group
_KNOWN_AS: Final = "uid:"


class CallerProtocol(H11Protocol):
    """HTTP whose client is the account at the other end."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer = transport.get_extra_info("socket")
        said = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        process, user, _ = _PEER.unpack(said)
        self.client = known_as(user), process


def known_as(user: int) -> str:
    """How an account stands in a request."""
    return f"{_KNOWN_AS}{user}"


class Callers:
    """Tells routes who asks. Default is deny."""

    def __init__(self, operators: Operators) -> None:
        self._operators = operators

    async def operator(self, request: Request) -> OperatorName | None:
        """The operator who asks; None for an administrator. RefusedError(kind="not-known-here") otherwise."""
        user = _user_of(request)
        if user in {0, os.geteuid()}:
            return None
        operator = self._operators.operator_of(_account(user))
        if operator is None:
            raise RefusedError(
                f"this host knows no operator with the account {_account(user)!r}",
                kind="not-known-here",
                remedy="add it to authorization.toml: [operators.NAME] account = ..., or ask as root",
            )
        return operator

    async def administrator(self, request: Request) -> None:
        """RefusedError(kind="administrators-only") for everybody else."""
        if (operator := await self.operator(request)) is not None:
            raise RefusedError(
                f"{operator} may not {request.method} {request.url.path}: it is for administrators",
                kind="administrators-only",
                remedy="ask as root",
            )


def _user_of(request: Request) -> int:
    host = request.client.host if request.client is not None else ""
    if not host.startswith(_KNOWN_AS):
        raise RefusedError("it is not known who asks", kind="not-known-here", remedy="ask at the socket")
    return int(host.removeprefix(_KNOWN_AS))


def _account(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)
