"""VMs: list, show, define, start, stop, adopt."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter

from korora.errors import UsageError
from korora.host import schema
from korora.supervision.guests import Guests


def vm_routes(guests: Guests) -> APIRouter:
    router = APIRouter(tags=["vms"])

    async def shown(name: str) -> schema.VmAnswer:
        return schema.vm_answer(await guests.status(name))

    @router.get("/vms")
    async def list_vms() -> list[schema.VmAnswer]:
        """Every VM this host knows, also those that moved away."""
        return [schema.vm_answer(status) for status in await guests.statuses()]

    @router.get("/vms/{name}")
    async def show_vm(name: str) -> schema.VmAnswer:
        return await shown(name)

    @router.post("/vms", status_code=201)
    async def create_vm(body: schema.CreateVm) -> schema.VmAnswer:
        """Define a VM by its TOML text; start it if asked. A failure leaves no more known than before."""
        if body.start:
            return await shown((await guests.run(body.definition)).definition.name)
        return await shown((await guests.define(body.definition)).name)

    # Before /vms/{name}/…: `adopt` is a verb here, and no path of the other routes.
    @router.post("/vms/adopt", status_code=201)
    async def adopt_vm(body: schema.AdoptVm) -> schema.VmAnswer:
        """Supervise a QEMU that somebody else started."""
        if not body.qmp.startswith("/") or "\0" in body.qmp:
            raise UsageError(
                f"{body.qmp!r} is not the absolute path of a QMP socket",
                kind="bad-request",
                remedy="give the path that the QEMU was started with: -qmp unix:PATH,server=on",
            )
        return await shown((await guests.adopt(Path(body.qmp), body.name)).definition.name)

    @router.post("/vms/{name}/start")
    async def start_vm(name: str) -> schema.VmAnswer:
        await guests.start(name)
        return await shown(name)

    @router.post("/vms/{name}/stop")
    async def stop_vm(name: str, body: schema.StopVm) -> schema.VmAnswer:
        """Shut the guest down; with `force`, end it at once."""
        await guests.stop(name, force=body.force)
        return await shown(name)

    return router
