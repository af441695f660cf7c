"""Every failure of the API in one shape: {"error": {kind, message, remedy, vm_runs_on, exit_code}}.

Promise: no traceback and no foreign text leaves the daemon; a bug is logged and the daemon goes on.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import cast

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from korora.errors import ExitCode, KororaError, UsageError, files_failed, is_of_files
from korora.host.schema import Failure, FailureAnswer

_STATUS = {
    ExitCode.BUG: 500,
    ExitCode.USAGE: 400,
    ExitCode.REFUSED: 403,
    ExitCode.QUESTION: 409,
    ExitCode.INTEGRITY: 422,
    ExitCode.TOOL: 502,
    ExitCode.IN_DOUBT: 503,
}
_CONFLICTS = frozenset(
    {"not-running", "running", "moving", "busy", "not-owner", "adopted", "name-taken", "adopted-already"}
)

_log = structlog.get_logger("korora.api")


def status_of(error: KororaError) -> int:
    """The HTTP status that fits. Programs go by `kind` and `exit_code`; this is for other HTTP tools."""
    if error.kind.startswith("unknown-"):
        return 404
    return 409 if error.kind in _CONFLICTS else _STATUS[error.exit_code]


def failure_of(error: KororaError) -> Failure:
    return Failure(error.kind, error.message, error.remedy, error.vm_runs_on, int(error.exit_code))


def answer(error: KororaError, status: int | None = None) -> JSONResponse:
    return JSONResponse(asdict(FailureAnswer(failure_of(error))), status or status_of(error))


def install(api: FastAPI) -> None:
    api.add_exception_handler(KororaError, _understood)
    api.add_exception_handler(RequestValidationError, _malformed)
    api.add_exception_handler(HTTPException, _no_such_thing)
    api.add_exception_handler(OSError, _files)
    api.add_middleware(_Bugs)


async def _understood(request: Request, problem: Exception) -> JSONResponse:
    error = cast("KororaError", problem)
    _log.info("refused", method=request.method, path=request.url.path, kind=error.kind, error=error.message)
    return answer(error)


async def _malformed(request: Request, problem: Exception) -> JSONResponse:
    faults = cast("RequestValidationError", problem).errors()
    told = "; ".join(f"{'.'.join(str(step) for step in fault['loc'])}: {fault['msg']}" for fault in faults)
    return answer(_usage(f"the request is malformed: {told}"[:2000]), 400)


async def _no_such_thing(request: Request, problem: Exception) -> JSONResponse:
    raised = cast("HTTPException", problem)
    told = f"{request.method} {request.url.path}: {raised.detail}"
    return answer(_usage(told), raised.status_code)


async def _files(request: Request, problem: Exception) -> JSONResponse:
    """A full disk is the administrator's to mend; any other OSError is a bug, told by `_Bugs`."""
    if not is_of_files(problem):
        raise problem
    _log.error("files", method=request.method, path=request.url.path, exc_info=problem)
    return answer(files_failed(problem))


class _Bugs:
    """The outermost layer: what nobody foresaw is logged once, and answered if nothing was answered yet."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as problem:
            _log.error("bug", method=scope.get("method"), path=scope.get("path"), exc_info=problem)
            if not begun:
                await _bug(problem)(scope, receive, send)


def _bug(problem: Exception) -> JSONResponse:
    return answer(
        KororaError(
            f"the daemon failed in a way it does not know: {type(problem).__name__}",
            kind="bug",
            remedy="look for `bug` in the daemon's log on this host, and report it with those lines",
        )
    )


def _usage(message: str) -> UsageError:
    return UsageError(message, kind="bad-request", remedy="see /openapi.json for what the API takes")
