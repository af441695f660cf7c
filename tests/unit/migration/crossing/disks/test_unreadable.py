"""A disk that cannot be read whole: told with its place, or moved with placeholders; the guest runs on."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from fakes import counting_guest
from fakes.failing_file import failing
from fakes.two_qemus import MIB, Host, two_hosts, until
from korora.adapters.hypervisor.disks import overlay
from korora.adapters.hypervisor.disks.at_rest import disks_at_rest
from korora.adapters.image.qemu_nbd import QemuImages
from korora.agents.integrity.disks.gaps import Gaps
from korora.errors import ToolError
from korora.migration.crossing.disks.manner import MIRRORED, Manner
from korora.migration.crossing.disks.measuring import Measuring
from korora.migration.crossing.disks.outgoing import DisksOut
from korora.migration.crossing.disks.unreadable import DiskUnreadableError
from korora.model.flag import FlagKind, Place
from korora.model.vm import Disk
from korora.ports.clock import SystemClock
from korora.ports.moving_disks import MovingDisks
from korora.protocol.flag import name, placeholder

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]
BAD = 2 * MIB + 3 * 4096
FLAG = name("web", FlagKind.UNREADABLE, Place(disk="b", offset=2 * MIB, length=MIB), "")


class Relay:
    """The disks are reached directly."""

    goes_on = True

    def start(self) -> None: ...

    def abort(self, why: str) -> None: ...

    async def finished(self) -> Any:
        if self.goes_on:
            raise ToolError("it goes on", kind="stalled")


def broken_at(base: Path, offset: int) -> dict[str, str]:
    error = "file.inject-error.0.event=read_aio,file.inject-error.0.errno=5"
    image = f"file.driver=blkdebug,file.image.driver=file,file.image.filename={base}/here/b"
    return {"b": f"{image},{error},file.inject-error.0.sector={offset // 512}"}


def out_of(
    disks: MovingDisks, there: Host, gaps: Mapping[str, Gaps] | None = None, *, ends: bool = False
) -> DisksOut:
    relays = {one: (cast(Any, Relay()), there.disks.socket) for one in disks.sizes}
    for relay, _ in relays.values():
        relay.goes_on = not ends
    return DisksOut(disks, relays, QemuImages(), SystemClock(), gaps or {})


async def quiet(_: Any) -> None: ...


async def runs_on(here: Host) -> None:
    assert (await here.qmp.execute("query-status"))["status"] == "running"
    now = counting_guest.counted(here.base / "b")
    await until(lambda: counting_guest.counted(here.base / "b") > now + 10)


MANNERS = {"copied": Manner(mirrored=False), "outsourced": Manner(mirrored=False)}


@pytest.mark.parametrize("how", ["mirrored", "copied", "outsourced", "by hashes"])
def test_it_is_refused_with_the_disk_and_the_bytes_and_the_guest_runs_on(tmp_path: Path, how: str) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path, below=broken_at(tmp_path, BAD)) as (here, there):
            before = await here.graph()
            await there.disks.receive()
            out = out_of(here.disks, there)
            manner = MANNERS.get(how, MIRRORED)
            if how == "outsourced":
                manner = replace(manner, replacement=here.base)
            if how == "by hashes":
                await out.copy(manner, quiet, ["b"])
            with pytest.raises(DiskUnreadableError) as refused:
                await (out.leaves() if how == "by hashes" else out.copy(manner, quiet))
            assert (refused.value.disk, refused.value.offset, refused.value.length) == ("b", BAD, 4096)
            assert f"bytes {BAD} to {BAD + 4096}" in refused.value.message
            await out.abandon("it cannot be read")
            assert await here.graph() == before
            assert not list(here.base.glob("korora-*"))
            assert not (here.base / overlay.RECORD).exists()
            await runs_on(here)

    asyncio.run(story())


def test_a_stopped_vms_is_told_likewise(tmp_path: Path) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path) as (here, there):
            await there.disks.receive()
            here.process.kill()
            here.process.wait()
            path = here.base / "b"
            with failing(path, BAD):
                resting = await disks_at_rest([Disk(str(path), "raw", "b")], here.base, writable=False)
                try:
                    out = out_of(resting, there)
                    with pytest.raises(DiskUnreadableError) as refused:
                        await out.copy(MIRRORED, quiet)
                    assert (refused.value.disk, refused.value.offset) == ("b", BAD)
                    await out.abandon("it cannot be read")
                finally:
                    await resting.end()

    asyncio.run(story())


def test_what_is_flagged_goes_on_as_placeholders_and_the_rest_as_it_is(tmp_path: Path) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path, below=broken_at(tmp_path, BAD)) as (here, there):
            before = await here.graph()
            await there.disks.receive()
            out = out_of(here.disks, there, {"b": Gaps({2: FLAG})}, ends=True)
            theirs = Measuring(there.disks, QemuImages())
            await out.copy(MIRRORED, quiet)
            await out.settle()
            await theirs.settle()
            theirs.keep()
            now = counting_guest.counted(here.base / "b")
            await until(lambda: counting_guest.counted(here.base / "b") > now + 10)
            await here.qmp.execute("stop")
            told = (await out.cut()).contents
            assert await theirs.contents() == told
            await there.disks.end()
            await out.abandon("the test is over")
            assert await here.graph() == before
            there.process.kill()
            there.process.wait()
            here_b, there_b = (bytearray((one.base / "b").read_bytes()) for one in (here, there))
            here_b[BAD : BAD + 4096] = placeholder(FLAG, 4096)
            assert there_b == here_b

    asyncio.run(story())


def test_what_is_not_flagged_is_refused_also_beside_what_is(tmp_path: Path) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path, below=broken_at(tmp_path, BAD)) as (here, there):
            await there.disks.receive()
            out = out_of(here.disks, there, {"b": Gaps({1: FLAG})})
            with pytest.raises(DiskUnreadableError) as refused:
                await out.copy(MIRRORED, quiet)
            assert (refused.value.disk, refused.value.offset) == ("b", BAD)
            await out.abandon("it cannot be read")
            await runs_on(here)

    asyncio.run(story())
