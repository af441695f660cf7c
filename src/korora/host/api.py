"""The daemon's HTTP API, put together. Served on a unix socket only; `caller` says who may do what."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import Depends, FastAPI

from korora.host import failures
from korora.host.caller import Callers
from korora.host.routes.evidence import evidence_routes
from korora.host.routes.heat import heat_routes
from korora.host.routes.host import host_routes
from korora.host.routes.inspections import inspection_routes
from korora.host.routes.kept import kept_routes
from korora.host.routes.migrations import migration_routes
from korora.host.routes.questions import question_routes
from korora.host.routes.vms import vm_routes
from korora.host.schema import FailureAnswer
from korora.host.services import Services


def create_api(services: Services) -> FastAPI:
    """The application; it holds nothing of its own. Its description is at /openapi.json."""
    api = FastAPI(
        title="Korora host",
        version=version("korora"),
        # A page that loads scripts from elsewhere has no place on a host's management socket.
        docs_url=None,
        # Nothing about a host is sent anywhere, whatever the environment asks for.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        redoc_url=None,
        responses={"default": {"model": FailureAnswer, "description": "A failure, and what to do about it"}},
    )
    failures.install(api)
    callers = Callers(services.operators)
    for router in (
        host_routes(services),
        vm_routes(services.guests),
        heat_routes(services.heat),
        kept_routes(services.kept, services.configuration.kept),
        evidence_routes(services),
    ):
        api.include_router(router, prefix="/v1", dependencies=[Depends(callers.administrator)])
    for router in (
        migration_routes(services.migrations, callers),
        question_routes(services.migrations, callers),
        inspection_routes(services.inspections, callers),
    ):
        api.include_router(router, prefix="/v1")
    return api
