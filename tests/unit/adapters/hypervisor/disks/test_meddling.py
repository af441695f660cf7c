"""Others who write to a disk that moves, grow it or put a snapshot over it: told, and the guest runs on."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest

from fakes import counting_guest
from fakes.two_qemus import MIB, Host, ready, two_hosts, until
from korora.adapters.hypervisor.disks import overlay
from korora.adapters.hypervisor.disks.making import make_disk
from korora.adapters.hypervisor.qemu import Qemu
from korora.errors import RefusedError, ToolError
from korora.model.identity import VmName
from korora.model.vm import Disk, RunState, VmDefinition
from korora.ports.hypervisor import Place

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]
AT = 2 * MIB


def meddle(path: Path) -> None:
    words = [
        "dd",
        "if=/dev/urandom",
        f"of={path}",
        "bs=4096",
        f"seek={AT // 4096}",
        "count=1",
        "conv=notrunc",
    ]
    subprocess.run(words, check=True, capture_output=True, timeout=60)


def holding(path: Path) -> subprocess.Popen[bytes]:
    with path.open("r+b") as file:
        return subprocess.Popen(["sleep", "600"], stdin=file)


def look(path: Path) -> None:
    subprocess.run(["qemu-img", "info", "-U", str(path)], check=True, capture_output=True, timeout=60)
    path.read_bytes()


async def runs_on(here: Host) -> None:
    assert (await here.qmp.execute("query-status"))["status"] == "running"
    now = counting_guest.counted(here.base / "b")
    await until(lambda: counting_guest.counted(here.base / "b") > now + 10)


@asynccontextmanager
async def moving(base: Path, how: str) -> AsyncIterator[tuple[Host, Host]]:
    """As it was afterwards, whatever was done to it."""
    async with two_hosts(base) as (here, there):
        before = await here.graph()
        if how == "mirror":
            await ready(here, there)
        else:
            await there.disks.receive()
        for name in here.disks.sizes if how != "mirror" else ():
            if how == "outsource":
                await here.disks.outsource(name, here.base)
            else:
                await here.disks.reach(name, there.disks.socket)
        yield here, there
        await here.disks.end()
        assert await here.graph() == before
        assert not (here.base / overlay.RECORD).exists()
        await runs_on(here)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is told who writes")
@pytest.mark.parametrize("how", ["mirror", "outsource", "reach"])
def test_who_writes_to_its_file_meanwhile_is_told_and_who_reads_it_is_not(tmp_path: Path, how: str) -> None:
    async def story() -> None:
        async with moving(tmp_path, how) as (here, _):
            await asyncio.to_thread(look, here.base / "b")
            await here.disks.copied()
            await asyncio.to_thread(meddle, here.base / "b")
            for told in (here.disks.copied, here.disks.stand_by):
                with pytest.raises(ToolError, match="disk b") as refused:
                    await told()
                assert refused.value.kind == "disk-written"
                await asyncio.to_thread(meddle, here.base / "b")

    asyncio.run(story())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is told who writes")
def test_a_disk_that_another_process_could_write_to_does_not_begin_to_move(tmp_path: Path) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path) as (here, there):
            await there.disks.receive()
            writer = holding(here.base / "b")
            try:
                with pytest.raises(ToolError, match=f"sleep .process {writer.pid}.*disk b") as refused:
                    await here.disks.mirror("b", there.disks.socket)
                assert refused.value.kind == "disk-written"
            finally:
                writer.kill()
                writer.wait()
            await here.disks.end()
            await here.disks.mirror("b", there.disks.socket)
            await here.disks.end()
            await runs_on(here)

    asyncio.run(story())


def test_a_file_that_another_was_put_in_the_place_of_is_told(tmp_path: Path) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path) as (here, there):
            await ready(here, there)
            shutil.copy(here.base / "b", here.base / "other")
            (here.base / "b").rename(here.base / "kept")
            (here.base / "other").rename(here.base / "b")
            with pytest.raises(ToolError, match="another file"):
                await here.disks.copied()
            (here.base / "kept").rename(here.base / "b")
            await here.disks.end()
            await runs_on(here)

    asyncio.run(story())


@pytest.mark.parametrize("how", ["mirror", "outsource", "reach"])
def test_a_disk_that_is_made_larger_meanwhile_is_refused_by_qemu_or_told(tmp_path: Path, how: str) -> None:
    async def story() -> None:
        async with moving(tmp_path, how) as (here, _):
            node = next(one.node for one in here.disks._drives.values() if one.name == "b")
            over = "korora-over-1" if how == "outsource" else node
            grown = {"node-name": over, "size": 4 * MIB}
            if how == "mirror":
                with pytest.raises(ToolError, match="in use"):
                    await here.qmp.execute("block_resize", grown)
                return
            await here.qmp.execute("block_resize", grown)
            for told in (here.disks.written("b").__aenter__, here.disks.stand_by):
                with pytest.raises(ToolError, match="3145728") as refused:
                    await told()
                assert refused.value.kind == "disk-changed"

    asyncio.run(story())
    size = (tmp_path / "here" / "b").stat().st_size
    assert size == (3 if how == "mirror" else 4) * MIB


@pytest.mark.parametrize("how", ["mirror", "outsource", "reach"])
def test_a_snapshot_that_is_taken_meanwhile_is_refused_by_qemu_or_told(tmp_path: Path, how: str) -> None:
    async def story() -> None:
        async with moving(tmp_path, how) as (here, _):
            node = here.disks._node["b"]
            file = {"driver": "file", "filename": str(tmp_path / "snapshot")}
            await make_disk(Disk(file["filename"], "qcow2", "snapshot"), 3 * MIB)
            await here.qmp.execute(
                "blockdev-add", {"driver": "qcow2", "node-name": "s", "file": file, "backing": None}
            )
            taking = {"node": node, "overlay": "s"}
            if how == "mirror":
                with pytest.raises(ToolError, match="busy"):
                    await here.qmp.execute("blockdev-snapshot", taking)
                await here.qmp.execute("blockdev-del", {"node-name": "s"})
                return
            await here.qmp.execute("blockdev-snapshot", taking)
            for told in (here.disks.written("b").__aenter__, here.disks.stand_by):
                with pytest.raises(ToolError, match="snapshot") as refused:
                    await told()
                assert refused.value.kind == "disk-changed"
            if how == "outsource":
                with pytest.raises(ToolError, match="snapshot over it") as left:
                    await here.disks.end()
                assert left.value.kind == "not-folded-back"
                assert (here.base / overlay.RECORD).exists()
                assert (await here.qmp.execute("query-status"))["status"] == "running"
            await merged(here, bottom=how == "reach")

    asyncio.run(story())


def test_a_disk_that_had_a_snapshot_put_over_it_before_does_not_begin_to_move(tmp_path: Path) -> None:
    async def story() -> None:
        disk = Disk(str(tmp_path / "a"), "raw", "data")
        (tmp_path / "a").write_bytes(bytes(MIB))
        vm = VmDefinition(
            VmName("web"), str(UUID(int=7)), 64 * MIB, accelerator="tcg", disks=(disk,), vtpm=False
        )
        machine = await Qemu(tmp_path / "cache").start(vm, Place(tmp_path / "web", None), incoming=False)
        try:
            await machine.moving_disks(["data"])
            taken = {"node-name": "data-node", "snapshot-node-name": "s", "format": "qcow2"}
            taken["snapshot-file"] = str(tmp_path / "snapshot")
            await machine._qmp.execute("blockdev-snapshot-sync", taken)
            with pytest.raises(RefusedError, match="its definition names for data: a snapshot") as refused:
                await machine.moving_disks(["data"])
            assert refused.value.kind == "disk-changed"
            assert await machine.run_state() is RunState.RUNNING
        finally:
            await machine.quit()

    asyncio.run(story())


async def merged(here: Host, *, bottom: bool) -> None:
    """The snapshot, by whoever took it: into what it was put over, or all of the chain into one."""
    base = {} if bottom else {"base-node": here.disks._node["b"]}
    await here.qmp.execute("block-commit", {"job-id": "theirs", "device": "s", **base})
    while True:
        (job,) = [one for one in await here.qmp.execute("query-jobs") if one["id"] == "theirs"]
        if job["status"] == "ready":
            break
        await asyncio.sleep(0.02)
    await here.qmp.execute("job-complete", {"id": "theirs"})
    while any(one["id"] == "theirs" for one in await here.qmp.execute("query-jobs")):  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    await here.qmp.execute("blockdev-del", {"node-name": "s"})
