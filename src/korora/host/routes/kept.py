"""What this host kept of the disks of VMs that left it: listed, and dropped."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter
from fastapi.responses import Response
from msgspec.structs import replace

from korora.errors import ToolError, UsageError
from korora.model.configuration import KeptBounds
from korora.model.identity import VmName, checked_name
from korora.policy.keeping import kept_until
from korora.ports.kept_disks import KeptDisks


def kept_routes(kept: KeptDisks, bounds: KeptBounds) -> APIRouter:
    router = APIRouter(tags=["vms"])

    @router.get("/kept", response_class=Response)
    async def list_kept() -> Response:
        """By VM and disk. None of them can be started; each is measured before anything relies on it."""
        return _answer([replace(one, until=kept_until(one, bounds)) for one in kept.all()])

    @router.delete("/kept/{vm}", response_class=Response)
    async def drop_kept(vm: str) -> Response:
        """Wipe what is kept of this VM's disks. A VM that returns is sent whole then."""
        try:
            steps = await kept.drop(VmName(checked_name(vm, "VM")))
        except OSError as error:
            raise ToolError(
                f"what is kept of {vm} was not wiped: {error.strerror or error}",
                kind="not-wiped",
                remedy="see what is wrong with the storage, and repeat it",
            ) from error
        if not steps:
            raise UsageError(
                f"nothing of {vm} is kept here",
                kind="nothing-kept",
                remedy="`korora disk kept` lists what is",
            )
        return _answer(steps)

    return router


def _answer(told: object) -> Response:
    return Response(msgspec.json.encode(told), media_type="application/json")
