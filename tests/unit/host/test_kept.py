"""Kept disks over the API."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import msgspec

from fakes.host_services import FakeServices, configuration_in
from korora.host.api import create_api
from korora.host.caller import known_as
from korora.model.kept import KeptDisk

RECORD = KeptDisk(vm="web", uuid="u", name="data", format="raw", size=9, root="", to="b", at=7)


def test_what_is_kept_is_listed_and_wiped_when_dropped(tmp_path: Path) -> None:
    disk = tmp_path / "data.raw"
    disk.write_bytes(b"something")

    async def story() -> None:
        services = FakeServices(configuration_in(tmp_path))
        await services.kept.keep(RECORD, disk)
        transport = httpx.ASGITransport(create_api(services), client=(known_as(0), 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://daemon/v1") as http:
            (told,) = msgspec.json.decode((await http.get("/kept")).content, type=list[KeptDisk])
            assert msgspec.structs.replace(told, used=0) == msgspec.structs.replace(
                RECORD, until=RECORD.at + 30 * 86400
            )
            (step,) = (await http.delete("/kept/web")).json()
            assert (step["bytes"], step["verified"]) == (9, True)
            assert (await http.get("/kept")).json() == []
            again = (await http.delete("/kept/web")).json()["error"]
            assert (again["kind"], again["exit_code"]) == ("nothing-kept", 2)
            assert (await http.delete("/kept/..%2Fvms")).status_code in {400, 404}
        await services.guests.close()

    asyncio.run(story())


def test_another_user_sees_nothing_of_it(tmp_path: Path) -> None:
    async def story() -> None:
        services = FakeServices(configuration_in(tmp_path))
        transport = httpx.ASGITransport(create_api(services), client=(known_as(1234), 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://daemon/v1") as http:
            assert (await http.get("/kept")).status_code == 403
            assert (await http.delete("/kept/web")).status_code == 403
        await services.guests.close()

    asyncio.run(story())
