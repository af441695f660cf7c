"""Two QEMUs of one machine: one runs the counting guest, the other waits for it."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fakes import counting_guest
from korora.adapters.hypervisor.disks.making import make_disk
from korora.adapters.hypervisor.disks.moving import QemuMovingDisks
from korora.adapters.hypervisor.qmp import Qmp
from korora.adapters.hypervisor.snapshot.drives import drives_of
from korora.adapters.image.qemu_nbd import QemuImages
from korora.agents.dataorg import comparing
from korora.agents.integrity.disks.content import digest
from korora.agents.integrity.disks.settling import Settling
from korora.migration.crossing.disks.measuring import Measuring
from korora.model.identity import Digest
from korora.model.image import Format, ImageFiles, NbdExport
from korora.model.vm import Disk
from korora.ports.image import Range
from korora.ports.moving_disks import DiskThere

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
async def host(
    base: Path, form: str = "raw", *, incoming: bool = False, below: Mapping[str, str] | None = None
) -> AsyncIterator[Host]:
    """`below`: of a disk, what QEMU is told to have instead of its file (`file.…` of -blockdev)."""
    base.mkdir(exist_ok=True)
    words = [*FRAME, "-qmp", f"unix:{base}/qmp,server=on,wait=on"]
    words += ["-incoming", "defer"] if incoming else []
    for number, name in enumerate("ab"):
        file = (below or {}).get(name, f"file.driver=file,file.filename={base}/{name}")
        node = f"driver={form},node-name=node-{name},discard=unmap,{file}"
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
            disks = [Disk(f"{base}/{name}", form, name) for name in "ab"]
            yield Host(qmp, base, process, QemuMovingDisks(qmp, await drives_of(qmp, ()), base, disks=disks))
        await qmp.close()
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def two_hosts(
    base: Path,
    form: str = "raw",
    size: int = 3 * MIB,
    changed: int | None = None,
    below: Mapping[str, str] | None = None,
) -> AsyncIterator[tuple[Host, Host]]:
    """`here` runs the counting guest; `there` waits for a VM, with empty disks, or those of an earlier visit
    since which so many blocks have changed. `below`: as of `host`, `here`."""
    (base / "here").mkdir(exist_ok=True)
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
    async with host(base / "here", below=below) as here, host(base / "there", form, incoming=True) as there:
        await until(lambda: counting_guest.counted(base / "here" / "b") > 0)
        yield here, there


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  a guest tells nobody
        await asyncio.sleep(0.02)


async def agree(here: Host) -> None:
    """What the guest writes to one disk it writes to the other next. It stands still while both are read."""
    await here.qmp.execute("stop")
    counts = [counting_guest.counted(here.base / name) for name in "ab"]
    await here.qmp.execute("cont")
    assert counts[0] - counts[1] in {0, 1}, counts


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
