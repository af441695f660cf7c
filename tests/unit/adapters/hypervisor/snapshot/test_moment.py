"""Snapshots of disks in a real QEMU: hardware of every kind, a guest that writes, and ends at every point."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from fakes import counting_guest
from fakes.disk_images import qemu_img
from korora.adapters.filesystem.disk import exported
from korora.adapters.hypervisor.command_line import block_device
from korora.adapters.hypervisor.qmp import Qmp
from korora.adapters.hypervisor.snapshot import graph, moment
from korora.adapters.hypervisor.snapshot.drives import Drive, write_back
from korora.adapters.image.qemu_nbd import QemuImages
from korora.errors import KororaError, RefusedError, ToolError, UsageError
from korora.model.image import NbdExport
from korora.model.vm import Backing, Disk

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]
MIB = 1 << 20
DEADLINE_S = 100
FRAME = ("qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-m", "64", "-nodefaults", "-display", "none")
FIRMWARE = "/usr/share/OVMF/OVMF_CODE_4M.fd"


@dataclass(slots=True)
class Bench:
    """A QEMU with the disks a, b and c in `base`, full of ones, twos and threes."""

    qmp: Qmp
    base: Path
    process: subprocess.Popen[bytes]

    @property
    def scratch(self) -> Path:
        path = self.base / "scratch"
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    async def graph(self) -> tuple[object, ...]:
        """What a snapshot must leave as it was."""
        nodes = await self.qmp.execute("query-named-block-nodes", {"flat": True})
        blocks = await self.qmp.execute("query-block")
        drives = {str(block.get("qdev")): block.get("inserted", {}).get("node-name") for block in blocks}
        exports = await self.qmp.execute("query-block-exports")
        given = await self.qmp.execute("query-fdsets")
        return sorted(node["node-name"] for node in nodes), drives, exports, given

    async def status(self) -> str:
        return str((await self.qmp.execute("query-status"))["status"])

    async def serves(self) -> bool:
        """Whether an NBD server runs; it does not afterwards."""
        try:
            await self.qmp.execute("nbd-server-stop")
        except ToolError:
            return False
        return True

    async def write(self, device: str, value: int) -> None:
        words = f'qemu-io -d /machine/peripheral/{device}/virtio-backend "write -P {value} 0 1M"'
        said = await self.qmp.execute("human-monitor-command", {"command-line": words})
        assert not said.strip(), said


def started(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as said:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)


@asynccontextmanager
async def qemu(base: Path, hardware: str, *, lay_out: bool = True) -> AsyncIterator[Bench]:
    for value, name in enumerate("abc", 1):
        if lay_out:
            (base / name).write_bytes(bytes([value]) * 3 * MIB)
    words = [word.replace("@", f"{base}/") for word in hardware.split()]
    command = [*FRAME, "-qmp", f"unix:{base}/qmp,server=on,wait=on", *words]
    process = started(command, base / "log")
    try:
        qmp = await Qmp.connect(base / "qmp", 60, lambda: process.poll() is None)
        async with asyncio.timeout(DEADLINE_S):
            yield Bench(qmp, base, process)
        await qmp.close()
    finally:
        process.kill()
        process.wait()


async def read(export: NbdExport) -> bytes:
    def blocking() -> bytes:
        with QemuImages(connections=1).open_export(export) as image:
            return next(iter(image.each([(0, image.size)], bytes)))

    return await asyncio.to_thread(blocking)


def blockdev(name: str) -> str:
    """A disk as Korora itself makes it."""
    node = f"-blockdev driver=raw,node-name=node-{name},file.driver=file,file.filename=@{name}"
    return f"{node} -device virtio-blk-pci,id={name},drive=node-{name}"


# -- hardware of others ------------------------------------------------------------------------------------


def drive(name: str, interface: str = "none") -> str:
    return f"-drive if={interface},id=drive-{name},format=raw,file=@{name}"


@pytest.mark.parametrize(
    ("hardware", "names"),
    [
        (f"{drive('a', 'virtio')} {drive('b', 'virtio')}", {"device[0]": "a", "device[1]": "b"}),
        (f"{drive('a')} -device virtio-blk-pci,drive=drive-a", {"device[0]": "a"}),
        (f"{drive('a')} -device nvme,serial=1,drive=drive-a,id=fast", {"fast": "a"}),
        (
            f"-device virtio-scsi-pci {drive('a')} -device scsi-hd,drive=drive-a,id=first"
            f" {drive('b')} -device scsi-hd,drive=drive-b {drive('c')} -device scsi-cd,drive=drive-c",
            {"first": "a", "device[1]": "b"},
        ),
        (
            f"-device qemu-xhci {drive('a')} -device usb-storage,drive=drive-a"
            f" {drive('b')} -device usb-storage,drive=drive-b",
            {"legacy[0]": "a", "legacy[0]-2": "b"},
        ),
        (f"-hda @a -cdrom @b {drive('c')}", {"device[16]": "a"}),
        (
            "-blockdev driver=raw,node-name=a,read-only=on,file.driver=file,file.filename=@a"
            " -device virtio-blk-pci,drive=a,id=fixed",
            {"fixed": "a"},
        ),
    ],
    ids=["drive", "anonymous", "nvme", "scsi", "usb", "ide", "read-only"],
)
def test_disks_of_any_hardware_are_shown_and_given_back(
    tmp_path: Path, hardware: str, names: Mapping[str, str]
) -> None:
    async def story() -> None:
        async with qemu(tmp_path, hardware) as bench:
            before = await bench.graph()
            async with moment.disks_at_one_moment(bench.qmp, bench.scratch) as disks:
                assert set(disks) == set(names)
                for name, file in names.items():
                    assert await read(disks[name]) == (tmp_path / file).read_bytes()
            assert await bench.graph() == before
            assert await bench.status() == "running"
            assert not list(bench.scratch.iterdir())

    asyncio.run(story())


def test_disks_are_named_as_in_the_definition(tmp_path: Path) -> None:
    async def story() -> None:
        async with qemu(tmp_path, f"{drive('b', 'virtio')} {drive('a', 'virtio')}") as bench:
            known = (
                Disk(path=str(tmp_path / "a"), name="disk0"),
                Disk(path=str(tmp_path / "b"), name="disk1"),
            )
            async with moment.disks_at_one_moment(bench.qmp, bench.scratch, known) as disks:
                assert await read(disks["disk0"]) == bytes([1]) * 3 * MIB
                assert await read(disks["disk1"]) == bytes([2]) * 3 * MIB

    asyncio.run(story())


def test_a_device_without_a_name_in_the_definition_takes_nobody_elses(tmp_path: Path) -> None:
    async def story() -> None:
        async with qemu(tmp_path, f"{blockdev('a')} {blockdev('b')}") as bench:
            known = (Disk(path=str(tmp_path / "b"), name="a"),)
            async with moment.disks_at_one_moment(bench.qmp, bench.scratch, known) as disks:
                assert await read(disks["a"]) == bytes([2]) * 3 * MIB
                assert await read(disks["a-2"]) == bytes([1]) * 3 * MIB

    asyncio.run(story())


def test_a_disk_over_others_is_known_whatever_qemu_calls_its_file(tmp_path: Path) -> None:
    """Its header names the image beneath it by a link: then QEMU tells how it was opened, and no name."""
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "a").write_bytes(bytes([1]) * 3 * MIB)
    qemu_img("create", "-q", "-f", "qcow2", "-b", "link", "-F", "raw", tmp_path / "over", "3M")
    disk = Disk(str(tmp_path / "over"), "qcow2", "root", (Backing(str(tmp_path / "a"), "raw"),))

    async def story() -> None:
        device = "-device virtio-blk-pci,id=root,drive=root-node"
        node = json.dumps(block_device(disk), separators=(",", ":"))
        async with qemu(tmp_path, f"-blockdev {node} {device}", lay_out=False) as bench:
            told = await bench.qmp.execute("query-block")
            assert told[0]["inserted"]["image"]["filename"].startswith("json:")
            async with moment.disks_at_one_moment(bench.qmp, bench.scratch, (disk,)) as disks:
                assert await read(disks["root"]) == bytes([1]) * 3 * MIB

    asyncio.run(story())


@pytest.mark.skipif(not Path(FIRMWARE).exists(), reason="OVMF is not installed")
def test_flash_chips_of_the_firmware_are_no_disks(tmp_path: Path) -> None:
    shutil.copy("/usr/share/OVMF/OVMF_VARS_4M.fd", tmp_path / "variables")
    flash = f"-drive if=pflash,format=raw,unit=0,readonly=on,file={FIRMWARE}"

    async def story() -> None:
        hardware = f"{flash} -drive if=pflash,format=raw,unit=1,file=@variables {blockdev('a')}"
        async with (
            qemu(tmp_path, hardware) as bench,
            moment.disks_at_one_moment(bench.qmp, bench.scratch) as disks,
        ):
            assert set(disks) == {"a"}

    asyncio.run(story())


def test_a_vm_with_io_threads_is_refused_where_qemu_would_crash(tmp_path: Path) -> None:
    async def story() -> None:
        async with qemu(tmp_path, f"-object iothread,id=io {blockdev('a')},iothread=io") as bench:
            version = (await bench.qmp.execute("query-version"))["qemu"]["major"]
            if version >= 9:
                pytest.skip("its NBD server is sound in an I/O thread")
            before = await bench.graph()
            with pytest.raises(RefusedError, match="I/O threads") as refused:
                async with moment.disks_at_one_moment(bench.qmp, bench.scratch):
                    pass
            assert refused.value.kind == "disks-hidden"
            assert await bench.graph() == before
            assert await bench.status() == "running"

    asyncio.run(story())


def test_a_qemu_of_another_account_shows_its_disks_from_a_folder_that_it_cannot_enter(tmp_path: Path) -> None:
    async def story() -> None:
        async with qemu(tmp_path, f"{blockdev('a')} {blockdev('b')} -runas nobody") as bench:
            before = await bench.graph()
            real, effective = os.stat(f"/proc/{bench.process.pid}").st_uid, bench.scratch.stat()  # noqa: PTH116
            assert (real != 0, effective.st_uid, effective.st_mode & 0o777) == (True, 0, 0o700)
            async with moment.disks_at_one_moment(bench.qmp, bench.scratch) as disks:
                assert (bench.scratch / moment.SOCKET).stat().st_mode & 0o777 == 0o600
                await bench.write("a", 9)
                assert await read(disks["a"]) == bytes([1]) * 3 * MIB
                assert await read(disks["b"]) == bytes([2]) * 3 * MIB
            assert await bench.graph() == before
            assert not list(bench.scratch.iterdir())

    asyncio.run(story())


# -- others in the same QEMU -------------------------------------------------------------------------------


def test_a_backup_that_uses_the_nbd_server_goes_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with qemu(tmp_path, f"{blockdev('a')} {blockdev('b')}") as bench:
            theirs = {"type": "unix", "data": {"path": str(tmp_path / "theirs")}}
            await bench.qmp.execute("nbd-server-start", {"addr": theirs})
            export = {"type": "nbd", "id": "theirs", "node-name": "node-b"}
            await bench.qmp.execute("block-export-add", export)
            before = await bench.graph()
            with pytest.raises(ToolError, match="already running") as failed:
                async with moment.disks_at_one_moment(bench.qmp, bench.scratch):
                    pass
            assert "backup" in failed.value.remedy
            assert await bench.graph() == before
            assert await bench.status() == "running"
            assert await read(NbdExport(tmp_path / "theirs", "node-b")) == bytes([2]) * 3 * MIB

    asyncio.run(story())


def test_what_only_resembles_a_part_of_a_snapshot_is_left_alone(tmp_path: Path) -> None:
    names = ("korora-cbw-0-node", "korora-old-", "korora-then-x", "korora-stopped-1")

    async def story() -> None:
        async with qemu(tmp_path, blockdev("a")) as bench:
            for name in names:
                await graph.add_mark(bench.qmp, name)
            before = await bench.graph()
            async with moment.disks_at_one_moment(bench.qmp, bench.scratch) as disks:
                assert set(disks) == {"a"}
            assert await bench.graph() == before

    asyncio.run(story())


def test_a_folder_that_qemu_cannot_have_a_socket_in_is_told_before_anything_is_done(tmp_path: Path) -> None:
    async def story() -> None:
        async with qemu(tmp_path, blockdev("a")) as bench:
            deep = tmp_path / ("d" * 100)
            deep.mkdir()
            before = await bench.graph()
            with pytest.raises(UsageError) as failed:
                async with moment.disks_at_one_moment(bench.qmp, deep):
                    pass
            assert failed.value.kind == "socket-path"
            assert await bench.graph() == before

    asyncio.run(story())


# -- a guest that writes -----------------------------------------------------------------------------------


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  of a file, which has no event
        await asyncio.sleep(0.02)


def test_two_disks_are_of_one_moment_while_the_guest_writes_to_both(tmp_path: Path) -> None:
    counting_guest.lay_out(tmp_path / "a", tmp_path / "b")

    async def story() -> None:
        async with qemu(tmp_path, f"{blockdev('a')},bootindex=1 {blockdev('b')}", lay_out=False) as bench:
            await until(lambda: counting_guest.counted(tmp_path / "b") > 0)
            last = 0
            for _ in range(8):
                async with moment.disks_at_one_moment(bench.qmp, bench.scratch) as disks:
                    now = counting_guest.counted(tmp_path / "b")
                    await until(lambda now=now: counting_guest.counted(tmp_path / "b") > now + 10)  # type: ignore[misc]
                    first = counting_guest.count(await read(disks["a"]))
                    second = counting_guest.count(await read(disks["b"]))
                    walked = await asyncio.to_thread(exported, str(disks["a"].socket), disks["a"].name)
                    by_walker = counting_guest.count(await asyncio.to_thread(walked.read, 0, 3 * MIB))
                assert first - second in {0, 1}  # it writes to the first one first
                assert by_walker == first
                assert last < second <= now
                last = second

    asyncio.run(story())


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for the empty scratch file of one disk, and not for a cluster more."""
    folder = tmp_path / "small"
    folder.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_scratch_folder_breaks_the_snapshot_and_no_write_of_the_guest(
    tmp_path: Path, small: Path
) -> None:
    counting_guest.lay_out(tmp_path / "a", tmp_path / "b")

    async def story() -> None:
        async with qemu(tmp_path, f"{blockdev('a')},bootindex=1 {blockdev('b')}", lay_out=False) as bench:
            await until(lambda: counting_guest.counted(tmp_path / "b") > 0)
            before = await bench.graph()
            async with moment.disks_at_one_moment(bench.qmp, small) as disks:
                (small / "filler").write_bytes(bytes(_room(small)))
                await bench.write("b", 7)
                now = counting_guest.counted(tmp_path / "a")
                await until(lambda: counting_guest.counted(tmp_path / "a") > now + 10)
                with pytest.raises(ToolError) as failed:
                    await read(disks["b"])
                assert failed.value.kind == "unreadable"
                assert "room" in failed.value.remedy
            now = counting_guest.counted(tmp_path / "b")
            await until(lambda: counting_guest.counted(tmp_path / "b") > now + 10)
            assert (tmp_path / "b").read_bytes()[1024:MIB] == bytes([7]) * (MIB - 1024)
            assert await bench.graph() == before

    asyncio.run(story())


def _room(folder: Path) -> int:
    told = os.statvfs(folder)
    return told.f_bavail * told.f_frsize


# -- ends at every point -----------------------------------------------------------------------------------


class Died(BaseException):
    """The daemon's end: nothing that it would still do is done."""


@dataclass(slots=True)
class Faulty:
    """A QMP connection with a fault at its n-th command."""

    qmp: Qmp
    number: int
    fault: Callable[[Faulty], Awaitable[None]]
    asked: int = 0
    stops: int = 0
    dead: bool = False
    task: asyncio.Task[None] | None = field(default=None)

    async def execute(self, *words: Any, **options: Any) -> Any:
        self.stops += words[0] == "stop"
        return await self._met(lambda: self.qmp.execute(*words, **options))

    async def give(self, descriptor: int, name: str) -> None:
        await self._met(lambda: self.qmp.give(descriptor, name))

    async def give_file(self, descriptor: int, purpose: str) -> Any:
        return await self._met(lambda: self.qmp.give_file(descriptor, purpose))

    async def _met(self, work: Callable[[], Awaitable[Any]]) -> Any:
        if self.dead:
            raise Died
        self.asked += 1
        if self.asked == self.number:
            await self.fault(self)
        answer = await work()
        if self.dead:
            raise Died
        return answer


async def _die(faulty: Faulty) -> None:
    faulty.dead = True


async def _cancel(faulty: Faulty) -> None:
    assert faulty.task is not None
    faulty.task.cancel()
    await asyncio.sleep(0)


async def _fail(_: Faulty) -> None:
    raise ToolError("QEMU refused it", kind="qmp-gone")


async def _broken_at(bench: Bench, number: int, fault: Callable[[Faulty], Awaitable[None]]) -> bool:
    """Whether a snapshot comes to its n-th command, which has that fault."""
    faulty = Faulty(bench.qmp, number, fault)

    async def snapshot() -> None:
        async with moment.disks_at_one_moment(cast(Qmp, faulty), bench.scratch):
            await asyncio.sleep(0)

    faulty.task = asyncio.create_task(snapshot())
    await asyncio.wait({faulty.task})
    if not faulty.task.cancelled():
        error = faulty.task.exception()
        if error is not None and not isinstance(error, Died | KororaError):
            raise error
    return faulty.asked >= number


@pytest.mark.parametrize("fault", [_die, _cancel, _fail], ids=["died", "cancelled", "failed"])
def test_wherever_a_snapshot_ends_the_vm_runs_and_nothing_stays(
    tmp_path: Path, fault: Callable[[Faulty], Awaitable[None]]
) -> None:
    async def story() -> None:
        async with qemu(tmp_path, f"{blockdev('a')} {blockdev('b')}") as bench:
            before, number = await bench.graph(), 1
            while await _broken_at(bench, number, fault):
                if fault is _cancel:  # needs nobody who comes later
                    assert (await bench.graph(), await bench.status()) == (before, "running"), number
                await graph.clear(bench.qmp)
                assert (await bench.graph(), await bench.status()) == (before, "running"), number
                assert not await bench.serves(), number
                number += 1
            assert number > 30  # it had as many commands

    asyncio.run(story())


def test_a_vm_that_somebody_paused_stays_paused_when_a_snapshot_of_it_is_taken_out(tmp_path: Path) -> None:
    async def story() -> None:
        async with qemu(tmp_path, blockdev("a")) as bench:
            before = await bench.graph()
            await bench.qmp.execute("stop")
            number = 1
            while await _broken_at(bench, number, _die):
                await graph.clear(bench.qmp)
                assert await bench.status() == "paused", number
                number += 1
            assert number > 20  # it had as many commands
            await bench.qmp.execute("cont")
            await graph.clear(bench.qmp)
            assert await bench.graph() == before

    asyncio.run(story())


def test_a_vm_that_ends_meanwhile_is_an_error(tmp_path: Path) -> None:
    async def story() -> None:
        async with qemu(tmp_path, blockdev("a")) as bench:

            async def looked_at() -> None:
                async with moment.disks_at_one_moment(bench.qmp, bench.scratch) as disks:
                    bench.process.kill()
                    bench.process.wait()
                    with pytest.raises(ToolError):
                        await read(disks["a"])

            with pytest.raises(ToolError) as failed:
                await looked_at()
            assert failed.value.kind == "qmp-gone"
            assert not list(bench.scratch.glob("*.qcow2"))

    asyncio.run(story())


# -- what is written back before ---------------------------------------------------------------------------


def test_only_files_and_block_devices_are_opened_to_be_written_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "disk").write_bytes(b"0")
    synced: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda held: synced.append(str(Path(f"/proc/self/fd/{held}").readlink()))
    )
    files = ["/dev/null", "/dev/tty", tmp_path, tmp_path / "pipe", tmp_path / "none", "json:{}", "a\0b"]
    write_back(Drive("", "", "", 0, str(file)) for file in [*files, tmp_path / "disk"])
    assert synced == [str(tmp_path / "disk")]


def test_what_the_host_holds_back_is_written_before_the_vm_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[list[str], int]] = []

    async def story() -> None:
        async with qemu(tmp_path, f"{blockdev('a')} {blockdev('b')}") as bench:
            faulty = Faulty(bench.qmp, 0, _fail)

            def noted(drives: list[Drive]) -> None:
                written.append(([Path(drive.file).name for drive in drives], faulty.stops))

            monkeypatch.setattr(moment, "write_back", noted)
            async with moment.disks_at_one_moment(cast(Qmp, faulty), bench.scratch):
                assert faulty.stops == 1

    asyncio.run(story())
    assert written == [(["a", "b"], 0)]
