"""Disks on their way between two real QEMUs, under a guest that writes, with ends at every point."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import counting_guest
from fakes.two_qemus import MIB, digest_of, followed, measured, never_ready, ready, two_hosts, until
from korora.adapters.hypervisor.disks import leftover
from korora.adapters.hypervisor.disks.moving import QemuMovingDisks
from korora.adapters.hypervisor.snapshot.drives import drives_of
from korora.agents.integrity.disks.settling import PIECES_OF_A_CHUNK, Settling
from korora.errors import ToolError
from korora.model.vm import Disk

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_disk_that_is_written_to_is_the_same_there_once_it_is_cut(tmp_path: Path, form: str) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path, form) as (here, there):
            before = await here.graph()
            untouched = await there.graph()
            await ready(here, there)
            read = (await here.disks.copied()).read
            assert read.keys() == here.disks.sizes.keys()
            assert all(count <= here.disks.sizes[name] for name, count in read.items())
            assert form != "raw" or read == here.disks.sizes
            roots = [
                {name: Settling(size) for name, size in one.disks.sizes.items()} for one in (here, there)
            ]
            assert await measured(here, roots[0]) == await measured(there, roots[1]) == 6 * PIECES_OF_A_CHUNK
            now = counting_guest.counted(tmp_path / "here" / "b")
            await until(lambda: counting_guest.counted(tmp_path / "here" / "b") > now + 20)
            await here.qmp.execute("stop")
            await here.disks.cut()
            # The guest writes to the first piece of both, and to nothing else.
            count = await measured(here, roots[0])
            assert count == await measured(there, roots[1]) == 2
            for name in "ab":
                assert roots[0][name].root() == roots[1][name].root()
            for one in (here, there):
                await one.disks.end()
            assert await here.graph() == before
            assert await there.graph() == untouched
            await here.qmp.execute("cont")
            told = [one[name].root() for one in roots for name in "ab"]
        # As it was at the pause; here the guest ran on.
        assert [digest_of(tmp_path / "there" / name, form) for name in "ab"] == told[2:]

    asyncio.run(story())


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_of_a_disk_of_an_earlier_visit_only_what_differs_is_sent(tmp_path: Path, form: str) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path, form, size=64 * MIB, changed=9) as (here, there):
            before, untouched = await here.graph(), await there.graph()
            ours, theirs, reached, sent = await followed(here, there)
            assert 9 * 4096 <= sent <= 9 * 4096 + 2 * MIB  # and the guest's own chunks
            now = counting_guest.counted(tmp_path / "here" / "b")
            await until(lambda: counting_guest.counted(tmp_path / "here" / "b") > now + 20)
            await ours.settle()
            ours.keep()
            await theirs.settle()
            await until(lambda: counting_guest.counted(tmp_path / "here" / "b") > now + 60)
            await here.qmp.execute("stop")
            await here.disks.cut()
            told = await ours.contents()
            for one in reached.values():
                one.leave()
            assert await theirs.contents() == told
            for host in (here, there):
                await host.disks.end()
            assert await here.graph() == before
            assert await there.graph() == untouched
            await here.qmp.execute("cont")
        assert [digest_of(tmp_path / "there" / name, form) for name in "ab"] == [one.root for one in told]

    asyncio.run(story())


def test_a_disk_that_is_followed_to_a_host_that_is_lost_fails_and_the_guest_runs_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path, changed=3) as (here, there):
            before = await here.graph()
            ours, _, _, _ = await followed(here, there)
            ours.keep()
            there.process.kill()
            with pytest.raises(ToolError):
                await ours.contents()
            await ours.stop()
            await here.disks.end()
            assert await here.graph() == before
            now = counting_guest.counted(tmp_path / "here" / "b")
            await until(lambda: counting_guest.counted(tmp_path / "here" / "b") > now + 10)

    asyncio.run(story())


def test_a_chunk_of_zeros_takes_no_room_there(tmp_path: Path) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path, size=512 * MIB) as (here, there):
            await ready(here, there)
            await here.qmp.execute("stop")
            await here.disks.cut()
            await there.disks.end()
        assert (tmp_path / "there" / "b").stat().st_blocks * 512 < 8 * MIB

    asyncio.run(story())


def test_a_mirror_whose_other_side_is_lost_fails_and_the_guest_runs_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path) as (here, there):
            before = await here.graph()
            await ready(here, there)
            there.process.kill()
            with pytest.raises(ToolError) as failed:
                await never_ready(here)
            assert failed.value.kind == "mirror-failed"
            await here.disks.end()
            assert await here.graph() == before
            now = counting_guest.counted(tmp_path / "here" / "b")
            await until(lambda: counting_guest.counted(tmp_path / "here" / "b") > now + 10)

    asyncio.run(story())


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder where the first of the disks finds room, and not all of the second."""
    folder = tmp_path / "there"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1M", "none", str(folder)]
    subprocess.run(mount, check=True, timeout=60)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=60)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_destination_that_runs_full_is_told_and_the_guest_runs_on(tmp_path: Path, small: Path) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path) as (here, there):
            await there.disks.receive()
            await here.disks.mirror("a", there.disks.socket)
            await here.disks.mirror("b", there.disks.socket)
            with pytest.raises(ToolError, match="No space left on device") as failed:
                await never_ready(here)
            assert failed.value.kind == "mirror-failed"
            assert "room" in failed.value.remedy
            await here.disks.end()
            now = counting_guest.counted(tmp_path / "here" / "b")
            await until(lambda: counting_guest.counted(tmp_path / "here" / "b") > now + 10)

    asyncio.run(story())


def test_a_cut_before_the_disks_are_the_same_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path) as (here, _):
            with pytest.raises(ToolError, match="not copied"):
                await here.disks.cut()

    asyncio.run(story())


@pytest.mark.parametrize("at", ["mirroring", "measuring", "cut"])
def test_what_a_daemon_that_died_has_left_is_taken_out_and_the_guest_runs_on(tmp_path: Path, at: str) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path) as (here, there):
            before = await here.graph()
            await ready(here, there)
            if at == "measuring":
                left = here.disks.written("a")
                await left.__aenter__()
            if at == "cut":
                await here.qmp.execute("stop")
                await here.disks.cut()
                await here.qmp.execute("cont")
            await leftover.clear(here.qmp)
            await leftover.clear(here.qmp)
            assert await here.graph() == before
            now = counting_guest.counted(tmp_path / "here" / "b")
            await until(lambda: counting_guest.counted(tmp_path / "here" / "b") > now + 10)

    asyncio.run(story())


def test_another_program_that_uses_qemus_server_is_left_alone(tmp_path: Path) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path) as (_, there):
            address = {"type": "unix", "data": {"path": str(tmp_path / "others.sock")}}
            await there.qmp.execute("nbd-server-start", {"addr": address})
            with pytest.raises(ToolError) as refused:
                await there.disks.receive()
            assert refused.value.kind == "disks-served"
            await there.disks.end()
            await there.qmp.execute("nbd-server-stop")  # it is still there

    asyncio.run(story())


def test_a_raw_disk_is_read_from_the_file_that_its_definition_names_and_from_no_other(tmp_path: Path) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path) as (here, _):
            async with here.disks.written("b") as export:
                assert export.file == tmp_path / "here" / "b"
            await here.disks.end()
            drives = await drives_of(here.qmp, ())
            elsewhere = [Disk(str(tmp_path / "here" / name), "raw", other) for name, other in ("ab", "ba")]
            misled = QemuMovingDisks(here.qmp, drives, here.base, disks=elsewhere)
            async with misled.written("b") as export:
                assert export.file is None
            await misled.end()

    asyncio.run(story())
