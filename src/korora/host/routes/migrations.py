"""Migrations: check, begin, watch, cancel.

Whoever reaches the socket may begin one, for the request is signed; see `caller` for the rest.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import asdict
from typing import Any

import msgspec
import structlog
from fastapi import APIRouter, Depends
from fastapi.responses import StreamingResponse

from korora.errors import KororaError
from korora.host import schema
from korora.host.caller import Asker, Callers
from korora.host.services import Migrations

_log = structlog.get_logger("korora.api")


def migration_routes(migrations: Migrations, callers: Callers) -> APIRouter:
    router = APIRouter(tags=["migrations"], dependencies=[Depends(callers.operator)])
    asker = Depends(callers.operator)

    @router.post("/checks", dependencies=[Depends(callers.administrator)])
    async def check(body: schema.Check) -> schema.CheckAnswer:
        """Run both hosts' prechecks; nothing moves. No finding means that a migration may be asked for."""
        findings = await migrations.check(schema.inquiry_of(body))
        return schema.CheckAnswer([schema.FindingAnswer(**asdict(finding)) for finding in findings])

    @router.post("/migrations", status_code=202)
    async def migrate(body: schema.Migrate) -> schema.MigrationStarted:
        """Begin a migration by a signed request. Watch its events for the outcome."""
        return schema.MigrationStarted(migrations.begin(body.request.encode(), body.address))

    @router.get("/migrations")
    async def list_migrations(by: Asker = asker) -> list[dict[str, Any]]:
        """Those that the asker may watch."""
        return [dict(migration) for migration in migrations.list(by)]

    @router.get("/migrations/{migration}/events", response_class=StreamingResponse)
    async def watch(migration: str, by: Asker = asker) -> StreamingResponse:
        """One JSON object per line, from the last progress to the outcome, which ends the stream."""
        events = migrations.events(migration, by)
        # The first one is awaited here, so that an unknown id is an error and not a broken stream.
        first = await anext(events, None)
        return StreamingResponse(stream_of(first, events), media_type="application/x-ndjson")

    @router.delete("/migrations/{migration}", status_code=202)
    async def cancel(migration: str, by: Asker = asker) -> dict[str, str]:
        """Ask to cancel. The outcome still comes by the events; past the commit it may be `completed`."""
        await migrations.cancel(migration, by)
        return {"id": migration}

    return router


async def stream_of(
    first: Mapping[str, Any] | None, events: AsyncIterator[Mapping[str, Any]]
) -> AsyncIterator[bytes]:
    """Lines of JSON. A watcher that leaves ends `events` too, and costs nothing from then on."""
    try:
        if first is not None:
            yield msgspec.json.encode(first) + b"\n"
        async for event in events:
            yield msgspec.json.encode(event) + b"\n"
    except KororaError as problem:
        # The stream breaks off without an outcome, and its reader knows by that to ask again.
        _log.error("events-broke-off", kind=problem.kind, error=problem.message)
    finally:
        if isinstance(events, AsyncGenerator):
            await events.aclose()
