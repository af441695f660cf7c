"""Looking into VMs, and the flags that they have: inspect, verify, list, fetch originals, resolve.

To look into a VM is the administrators'; what operators may see and resolve of flags the policies say.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import asdict
from typing import Any

import msgspec
from fastapi import APIRouter, Depends
from fastapi.responses import Response, StreamingResponse

from korora.errors import KororaError, UsageError
from korora.host import schema
from korora.host.caller import Asker, Callers
from korora.host.failures import failure_of
from korora.host.services import Inspections

_JSON = "application/json"
_LINES = "application/x-ndjson"


def inspection_routes(inspections: Inspections, callers: Callers) -> APIRouter:
    router = APIRouter(tags=["inspections"], dependencies=[Depends(callers.operator)])
    administrators = [Depends(callers.administrator)]
    asker = Depends(callers.operator)

    @router.post("/vms/{name}/inspection", response_class=StreamingResponse, dependencies=administrators)
    async def inspect(name: str) -> StreamingResponse:
        """Look into a VM by the host's policy. One JSON object per line: {"told"}, and last {"inspection",
        "flags"} or {"error"}. Whoever stops reading stops it."""
        return await _streamed(inspections.inspect(name))

    @router.post("/vms/{name}/verification", response_class=StreamingResponse, dependencies=administrators)
    async def verify(name: str) -> StreamingResponse:
        """Hold a VM against what was written down when it was inspected last. Lines as above; last
        {"verification"}."""
        return await _streamed(inspections.verify(name))

    @router.get("/vms/{name}/inspection", response_class=Response, dependencies=administrators)
    async def report(name: str) -> Response:
        """The last report, made here or where the VM came from."""
        found = inspections.report(name)
        if found is None:
            raise UsageError(
                f"{name} was never inspected",
                kind="unknown-inspection",
                remedy=f"korora vm inspect {name}",
            )
        return Response(msgspec.json.encode(found), media_type=_JSON)

    @router.get("/flags", response_class=Response)
    async def list_flags(by: Asker = asker) -> Response:
        """The flags that the asker may see, open ones first: {"flags": [{"vm", "flag"}], "unreadable":
        [{"vm", "error"}]}, the latter of VMs whose record of flags cannot be read."""
        told = inspections.flags(by)
        found = [{"vm": vm, "flag": flag} for vm, flag in told.flags]
        unreadable = [{"vm": vm, "error": asdict(failure_of(error))} for vm, error in told.unreadable]
        return Response(msgspec.json.encode({"flags": found, "unreadable": unreadable}), media_type=_JSON)

    @router.get("/vms/{name}/flags/{flag}/original", response_class=Response)
    async def original(name: str, flag: str, by: Asker = asker) -> Response:
        """The bag (RFC 8493, in a tar) with what was found there. It may be malware."""
        return Response(inspections.original(name, flag, by), media_type="application/x-tar")

    @router.post("/flags/resolutions", response_class=Response)
    async def resolve(body: schema.Resolve) -> Response:
        """A person's signed word on a flag, which names it."""
        return Response(msgspec.json.encode(inspections.resolve(body.resolution.encode())), media_type=_JSON)

    return router


async def _streamed(events: AsyncIterator[Mapping[str, Any]]) -> StreamingResponse:
    """The first one is awaited here, so that a VM that cannot be looked into is an error at once."""
    first = await anext(events, None)
    return StreamingResponse(_lines(first, events), media_type=_LINES)


async def _lines(
    first: Mapping[str, Any] | None, events: AsyncIterator[Mapping[str, Any]]
) -> AsyncIterator[bytes]:
    try:
        if first is not None:
            yield msgspec.json.encode(first) + b"\n"
        async for event in events:
            yield msgspec.json.encode(event) + b"\n"
    except KororaError as error:
        yield msgspec.json.encode({"error": asdict(failure_of(error))}) + b"\n"
    finally:
        if isinstance(events, AsyncGenerator):
            await events.aclose()
