"""What is popular on a VM's disks."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query
from fastapi.responses import Response

from korora.host.services import Heat
from korora.model.heat import CELLS, CELLS_MAX


def heat_routes(heat: Heat) -> APIRouter:
    router = APIRouter(tags=["vms"])

    @router.get("/vms/{name}/heat", response_class=Response)
    async def show_heat(name: str, cells: Annotated[int, Query(ge=1, le=CELLS_MAX)] = CELLS) -> Response:
        """How often the parts of its disks are read and written, and which chunks are popular."""
        return Response(msgspec.json.encode(await heat.heat(name, cells)), media_type="application/json")

    return router
