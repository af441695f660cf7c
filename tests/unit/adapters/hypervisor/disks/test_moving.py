"""Disks on their way between two real QEMUs, under a guest that writes, with ends at every point."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes import counting_guest
from korora.adapters.hypervisor.disks import leftover
from korora.adapters.hypervisor.disks.making import make_disk
from korora.adapters.hypervisor.disks.moving import QemuMovingDisks
from korora.adapters.hypervisor.qmp import Qmp
from korora.adapters.hypervisor.snapshot.drives import drives_of
from korora.adapters.image.qemu_nbd import QemuImages
from korora.agents.dataorg import comparing
from korora.agents.integrity.disks.content import digest
from korora.agents.integrity.disks.settling import Settling
from korora.errors import ToolError
from korora.migration.crossing.measuring import Measuring
from korora.model.identity import Digest
from korora.model.image import Format, ImageFiles, NbdExport
from korora.model.vm import Disk
from korora.ports.image import Range
from korora.ports.moving_disks import DiskThere

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]
MIB = 1 << 20
DEADLINE_S = 100
FRAME = ("qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-m", "64", "-nodefaults", "-display", "none")


@dataclass(slots=True)
class Host:
    qmp: Qmp
    base: Path
    process: subprocess.Popen[bytes]
    disks: QemuMovingDisks

    async def graph(self) -> tuple[object, ...]:
        nodes = await self.qmp.execute("query-named-block-nodes", {"flat": True})
        marked = [(node["node-name"], node.get("dirty-bitmaps", [])) for node in nodes]
        return (
            sorted(marked, key=str),
            await self.qmp.execute("query-block-exports"),
            await self.qmp.execute("query-jobs"),
        )


def started(words: list[str], base: Path) -> subprocess.Popen[bytes]:
    with (base / "log").open("wb") as log:
        return subprocess.Popen(words, cwd=base, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


@asynccontextmanager
async def host(base: Path, form: str = "raw", *, incoming: bool = False) -> AsyncIterator[Host]:
    base.mkdir(exist_ok=True)
    words = [*FRAME, "-qmp", f"unix:{base}/qmp,server=on,wait=off"]
    words += ["-incoming", "defer"] if incoming else []
    for number, name in enumerate("ab"):
        node = (
            f"driver={form},node-name=node-{name},discard=unmap,file.driver=file,file.filename={base}/{name}"
        )
        words += [
            "-blockdev",
            node,
            "-device",
            f"virtio-blk-pci,id={name},drive=node-{name},bootindex={number}",
        ]
    process = started(words, base)
    try:
        qmp = await Qmp.connect(base / "qmp", 60, lambda: process.poll() is None)
        async with asyncio.timeout(DEADLINE_S):
            yield Host(qmp, base, process, QemuMovingDisks(qmp, await drives_of(qmp, ()), base))
        await qmp.close()
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def two_hosts(
    base: Path, form: str = "raw", size: int = 3 * MIB, changed: int | None = None
) -> AsyncIterator[tuple[Host, Host]]:
    """`here` runs the counting guest; `there` waits for a VM, with empty disks, or those of an earlier visit
    since which so many blocks have changed."""
    (base / "here").mkdir()
    (base / "there").mkdir(exist_ok=True)
    counting_guest.lay_out(base / "here" / "a", base / "here" / "b")
    with (base / "here" / "b").open("r+b") as file:
        file.seek(MIB)
        file.write(random.Random(5).randbytes(2 * MIB))
        file.truncate(max(size, 3 * MIB))
    for name in "ab":
        empty = Disk(str(base / "there" / name), form, name)
        await make_disk(empty, (base / "here" / name).stat().st_size)
        if changed is not None:
            lay_an_earlier_visit(base, name, form, changed if name == "b" else 0)
    async with host(base / "here") as here, host(base / "there", form, incoming=True) as there:
        await until(lambda: counting_guest.counted(base / "here" / "b") > 0)
        yield here, there


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  a guest tells nobody
        await asyncio.sleep(0.02)


async def ready(here: Host, there: Host) -> None:
    await there.disks.receive()
    for name in here.disks.sizes:
        await here.disks.mirror(name, there.disks.socket)
    while not (await here.disks.copied()).ready:  # noqa: ASYNC110  nobody tells
        await asyncio.sleep(0.02)


async def never_ready(here: Host) -> None:
    while True:
        await here.disks.copied()
        await asyncio.sleep(0.05)


def settling(one: Host) -> dict[str, Settling]:
    return {name: Settling(size) for name, size in one.disks.sizes.items()}


async def measured(one: Host, settling: dict[str, Settling]) -> int:
    def read(export: NbdExport, into: Settling) -> int:
        with QemuImages().open_export(export) as image:
            return into.measure(image)

    count = 0
    for name, into in settling.items():
        async with one.disks.written(name) as export:
            count += await asyncio.to_thread(read, export, into)
    return count


async def followed(here: Host, there: Host) -> tuple[Measuring, Measuring, dict[str, DiskThere], int]:
    """What differs is there, and what the guest writes follows whenever it is measured. Bytes sent."""
    await there.disks.receive()
    ours, theirs = (Measuring(one.disks, QemuImages()) for one in (here, there))
    reached: dict[str, DiskThere] = {}
    sent = 0
    for name, size in here.disks.sizes.items():
        reached[name] = await here.disks.reach(name, there.disks.socket)
        chunks = comparing.differing(await ours.leaves(name), await theirs.leaves(name))
        mine, other = await ours.grains(name, chunks), await theirs.grains(name, chunks)
        differ: list[Range] = []
        for chunk, one, two in zip(chunks, mine, other, strict=True):
            differ += comparing.blocks(comparing.span(chunk, size), one, two)
        sent += await ours.follow(name, differ, reached[name])
    return ours, theirs, reached, sent


def lay_an_earlier_visit(base: Path, name: str, form: str, changed: int) -> None:
    """At `there`, what `here` has, but for so many blocks, of which the first begins at 1 MiB."""
    there = base / "there" / name
    shutil.copyfile(base / "here" / name, there.with_suffix(".old"))
    with there.with_suffix(".old").open("r+b") as file:
        for number in range(changed):
            file.seek(MIB + number * 37 * 4096)
            file.write(b"of another time")
    words = ["qemu-img", "convert", "-n", "-f", "raw", "-O", form, f"{there}.old", str(there)]
    subprocess.run(words, check=True, timeout=60)


def digest_of(path: Path, form: str) -> Digest:
    with QemuImages().open(ImageFiles(path, Format(form))) as image:
        return digest(image, lambda _: None)


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_disk_that_is_written_to_is_the_same_there_once_it_is_cut(tmp_path: Path, form: str) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path, form) as (here, there):
            before = await here.graph()
            untouched = await there.graph()
            await ready(here, there)
            roots = [
                {name: Settling(size) for name, size in one.disks.sizes.items()} for one in (here, there)
            ]
            assert await measured(here, roots[0]) == await measured(there, roots[1]) == 6
            now = counting_guest.counted(tmp_path / "here" / "b")
            await until(lambda: counting_guest.counted(tmp_path / "here" / "b") > now + 20)
            await here.qmp.execute("stop")
            await here.disks.cut()
            # The guest writes to the first chunk of both, and to nothing else.
            assert await measured(here, roots[0]) == await measured(there, roots[1]) == 2
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
