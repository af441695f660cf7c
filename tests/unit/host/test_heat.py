"""The heat of a VM's disks over the API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest

from fakes.host_services import FakeServices, configuration_in
from korora.agents.dataorg.popularity import Popularity
from korora.host.api import create_api
from korora.host.caller import known_as
from korora.model.heat import VmHeat
from korora.supervision.heat.shelf import write_heat

MIB = 1 << 20
Story = Callable[[httpx.AsyncClient], Awaitable[None]]


def tell(folder: Path, story: Story, *, user: int = 0) -> None:
    async def whole() -> None:
        services = FakeServices(configuration_in(folder))
        definition = await services.guests.define('name = "web"\nmemory = "64M"\n')
        learnt = Popularity(64 * MIB)
        asked = np.array([[9 * MIB, 512]] * 6 + [[63 * MIB, 512]], np.int64)
        learnt.add(services.heat._clock.now(), 1.0, asked, np.empty((0, 2), np.int64))
        write_heat(services.guests.directory(definition.name), {"system": learnt})
        transport = httpx.ASGITransport(create_api(services), client=(known_as(user), 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://daemon/v1") as http:
            await story(http)
        await services.guests.close()

    asyncio.run(whole())


def test_what_was_kept_is_told_in_as_many_cells_as_are_asked_for(tmp_path: Path) -> None:
    async def story(http: httpx.AsyncClient) -> None:
        told = msgspec.json.decode((await http.get("/vms/web/heat?cells=8")).content, type=VmHeat)
        (disk,) = told.disks
        assert (told.vm, told.why, disk.name) == ("web", "it does not run", "system")
        assert disk.cell_chunks == 8
        assert disk.cell_reads_per_s == pytest.approx((0, 6, 0, 0, 0, 0, 0, 1), rel=0.02)
        assert (disk.hot, disk.hot_chunks) == (((9, 1),), 1)
        assert disk.hot_share == pytest.approx(6 / 7, rel=0.01)

    tell(tmp_path, story)


@pytest.mark.parametrize("cells", ["0", "-1", "8193", "many"])
def test_cells_have_a_bound(tmp_path: Path, cells: str) -> None:
    async def story(http: httpx.AsyncClient) -> None:
        answer = await http.get(f"/vms/web/heat?cells={cells}")
        assert (answer.status_code, answer.json()["error"]["exit_code"]) == (400, 2)

    tell(tmp_path, story)


def test_a_vm_that_nobody_knows_is_not_found(tmp_path: Path) -> None:
    async def story(http: httpx.AsyncClient) -> None:
        answer = await http.get("/vms/nobody/heat")
        assert (answer.status_code, answer.json()["error"]["kind"]) == (404, "unknown-vm")

    tell(tmp_path, story)


def test_it_is_the_administrators_to_see(tmp_path: Path) -> None:
    async def story(http: httpx.AsyncClient) -> None:
        assert (await http.get("/vms/web/heat")).status_code == 403

    tell(tmp_path, story, user=12345)
