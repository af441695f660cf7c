"""Writes that go elsewhere while a disk moves: the same there, and folded back here whatever happens."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest

from fakes import counting_guest
from fakes.two_qemus import MIB, Host, agree, two_hosts, until
from korora.adapters.hypervisor.disks import leftover, outsourcing, overlay, replacement
from korora.adapters.hypervisor.disks.folding import fold_back
from korora.adapters.hypervisor.disks.replacement import Claims
from korora.adapters.hypervisor.qemu import Qemu
from korora.adapters.hypervisor.qmp import Qmp
from korora.adapters.image.qemu_nbd import QemuImages
from korora.agents.io.copying import GENTLE_BYTES, Pace
from korora.errors import RefusedError, ToolError
from korora.migration.crossing.copying.by_daemon import ByDaemon
from korora.model.identity import VmName
from korora.model.image import NbdExport
from korora.model.vm import Backing, Disk, RunState, VmDefinition
from korora.ports.clock import SystemClock
from korora.ports.hypervisor import Place
from korora.ports.image import UnreadableError

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")


def counted(here: Host, name: str = "b") -> int:
    return counting_guest.counted(here.base / name)


async def outsourced(here: Host, folder: Path) -> None:
    for name in here.disks.sizes:
        await here.disks.outsource(name, folder)


def content(export: NbdExport, *ranges: tuple[int, int]) -> bytes:
    with QemuImages(connections=1).open_export(export) as image:
        return b"".join(image.each(ranges or [(0, image.size)], bytes))


def written(export: NbdExport) -> list[tuple[int, int]]:
    with QemuImages(connections=1).open_export(export) as image:
        return list(image.written())


async def runs_on(here: Host) -> None:
    now = counted(here)
    await until(lambda: counted(here) > now + 10)


def nothing_left(here: Host, folder: Path) -> None:
    assert not list(folder.glob("korora-*"))
    assert not (here.base / overlay.RECORD).exists()


async def is_as_it_was(here: Host, before: tuple[object, ...], folder: Path) -> None:
    """QEMU has open what it had before, nothing else is left, and the guest goes on."""
    assert await here.graph() == before
    nothing_left(here, folder)
    await runs_on(here)


async def paused(here: Host) -> bytes:
    """What the guest sees of the second disk, once it has written past it and stands still."""
    await asyncio.sleep(0.3)
    await here.qmp.execute("stop")
    async with here.disks.written("b") as export:
        return await asyncio.to_thread(content, export)


def killed(here: Host) -> None:
    here.process.kill()
    here.process.wait()


async def another_daemon_folds_back(here: Host) -> None:
    await here.qmp.close()
    here.qmp = await Qmp.connect(here.base / "qmp", 60, lambda: True)
    await fold_back(here.qmp, here.base)


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_the_disk_is_frozen_and_what_is_written_since_is_told(tmp_path: Path, form: str) -> None:
    async def story() -> None:
        folder = tmp_path / "elsewhere"
        folder.mkdir()
        async with two_hosts(tmp_path, form) as (here, _):
            before = await here.graph()
            await outsourced(here, folder)
            frozen = {name: (here.base / name).read_bytes() for name in "ab"}
            assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
            await asyncio.sleep(0.5)
            await here.qmp.execute("stop")
            seen = {}
            for name in "ab":
                async with here.disks.frozen(name) as export:
                    assert await asyncio.to_thread(content, export) == frozen[name]
                async with here.disks.written(name) as export:
                    # The guest writes to the first block of both, and to nothing else.
                    assert await asyncio.to_thread(written, export) == [(0, 4096)]
                    seen[name] = await asyncio.to_thread(content, export)
                async with here.disks.written(name) as export:
                    assert await asyncio.to_thread(written, export) == []
            assert seen != frozen
            await here.disks.stand_by()
            assert {name: (here.base / name).read_bytes() for name in "ab"} == frozen
            await here.disks.end()
            assert await here.graph() == before
            nothing_left(here, folder)
            assert {name: (here.base / name).read_bytes() for name in "ab"} == seen
            await here.qmp.execute("cont")
            await runs_on(here)

    asyncio.run(story())


@pytest.mark.parametrize("at", ["frozen", "read", "moved"])
@pytest.mark.parametrize("how", ["end", "daemon died"])
def test_it_is_folded_back_at_any_point_and_the_guest_never_misses_a_write(
    tmp_path: Path, at: str, how: str
) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path) as (here, _):
            before = await here.graph()
            await outsourced(here, here.base)
            frozen = counted(here)
            if at != "frozen":
                async with here.disks.nearer("b") as export:
                    await asyncio.to_thread(content, export)
                async with here.disks.written("b") as export:
                    await asyncio.to_thread(content, export)
            if at == "moved":
                await here.qmp.execute("stop")
                await here.disks.stand_by()
                await here.qmp.execute("cont")
            await asyncio.sleep(0.3)
            assert counted(here) == frozen
            if how == "end":
                await here.disks.end()
            else:
                await another_daemon_folds_back(here)
            await leftover.clear(here.qmp)
            await is_as_it_was(here, before, here.base)
            await agree(here)

    asyncio.run(story())


def test_what_is_read_nearer_is_there_and_is_not_folded_back(tmp_path: Path) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path) as (here, _):
            before = await here.graph()
            await outsourced(here, here.base)
            assert here.disks.room_nearer("b") > 0
            async with here.disks.nearer("b") as export:
                read = await asyncio.to_thread(content, export, (MIB, MIB))
            assert read == (here.base / "b").read_bytes()[MIB : 2 * MIB]
            [cache] = here.base.glob("korora-here-b-*.cache.qcow2")
            assert cache.stat().st_blocks * 512 > MIB
            [over] = set(here.base.glob("korora-here-b-*.qcow2")) - {cache}
            assert over.stat().st_blocks * 512 < MIB
            await here.disks.end()
            await is_as_it_was(here, before, here.base)

    asyncio.run(story())


@pytest.mark.parametrize("more", [0, 512, 65536 + 512, 4 * MIB - 4096])
def test_what_is_read_nearer_may_be_read_in_gentle_pieces_to_any_end(tmp_path: Path, more: int) -> None:
    """Whole clusters, but for one that the end of the disk cuts."""

    async def story() -> None:
        async with two_hosts(tmp_path, size=3 * MIB + more) as (here, _):
            await outsourced(here, here.base)
            size = here.disks.sizes["b"]
            pieces = [(at, min(GENTLE_BYTES, size - at)) for at in range(0, size, GENTLE_BYTES)]
            async with here.disks.nearer("b") as export:
                for _ in range(2):  # from the disk, then from what came nearer
                    read = b"".join([await asyncio.to_thread(content, export, piece) for piece in pieces])
                    assert read == (here.base / "b").read_bytes()
            await here.disks.end()
            await runs_on(here)

    asyncio.run(story())


def test_what_a_qemu_that_was_killed_had_written_is_folded_back_without_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path) as (here, _):
            before = counted(here)
            await outsourced(here, here.base)
            seen = await paused(here)
            killed(here)
            with pytest.raises(ToolError) as failed:
                await here.disks.end()
            assert failed.value.kind == "qmp-gone"
            nothing_left(here, here.base)
            assert counted(here) > before
            assert (here.base / "b").read_bytes() == seen

    asyncio.run(story())


@pytest.mark.parametrize("record", [b"", b"[{", b"[]", None])
@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_record_that_is_lost_or_unreadable_is_made_anew_of_what_qemu_has_open(
    tmp_path: Path, record: bytes | None, form: str
) -> None:
    async def story() -> None:
        folder = tmp_path / "elsewhere"
        folder.mkdir()
        async with two_hosts(tmp_path, form) as (here, _):
            before = await here.graph()
            await outsourced(here, folder)
            noted = overlay.outsourced(here.base)
            spoil(here.base / overlay.RECORD, record)
            await asyncio.sleep(0.2)
            found = {(one.original, one.format, one.overlay, one.cache, one.backing) for one in noted}
            told = await outsourcing.opened(here.qmp)
            assert {(one.original, one.format, one.overlay, one.cache, one.backing) for one in told} == found
            await another_daemon_folds_back(here)
            await is_as_it_was(here, before, folder)
            await agree(here)
            await fold_back(here.qmp, here.base)  # of which nothing is left

    asyncio.run(story())


def test_a_record_made_anew_names_what_lies_beneath_the_disk(tmp_path: Path) -> None:
    async def story() -> None:
        (tmp_path / "beneath").write_bytes(bytes([1]) * MIB)
        disk = Disk(str(tmp_path / "over"), "qcow2", "data", (Backing(str(tmp_path / "beneath"), "raw"),))
        qemu, place = Qemu(tmp_path / "cache"), Place(tmp_path / "web", None)
        await qemu.make_disk(disk, MIB)
        vm = VmDefinition(
            VmName("web"), str(UUID(int=7)), 64 * MIB, accelerator="tcg", disks=(disk,), vtpm=False
        )
        machine = await qemu.start(vm, place, incoming=False)
        try:
            await (await machine.moving_disks(["data"])).outsource("data", tmp_path)
            (noted,) = overlay.outsourced(place.directory)
            (told,) = await outsourcing.opened(machine._qmp)
            assert told.backing == noted.backing == disk.backing
            spoil(place.directory / overlay.RECORD, b"[{")
            with pytest.raises(ToolError, match="cannot be read"):
                qemu.replacements(place.directory)
            await machine.close()
            found = await Qemu(tmp_path / "cache").attach(vm, place)
            assert found is not None
            machine = found
            assert qemu.replacements(place.directory) == ()
            assert not list(tmp_path.glob("korora-*"))
            assert await machine.run_state() is RunState.RUNNING
            assert (tmp_path / "beneath").read_bytes() == bytes([1]) * MIB
        finally:
            await machine.quit()

    asyncio.run(story())


def test_a_record_that_cannot_be_read_with_qemu_gone_keeps_everything_until_it_is_restored(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path) as (here, _):
            await outsourced(here, here.base)
            seen = await paused(here)
            record = here.base / overlay.RECORD
            noted = record.read_bytes()
            record.write_bytes(noted[:-1])
            killed(here)
            with pytest.raises(ToolError, match="cannot be read") as failed:
                await here.disks.end()
            assert failed.value.kind == "outsourced-record"
            assert "qemu-img commit" in failed.value.remedy
            with pytest.raises(ToolError, match="cannot be read"):
                overlay.files(here.base)
            assert len(list(here.base.glob("korora-*.qcow2"))) == 4
            record.write_bytes(noted)
            await overlay.fold_back_at_rest(here.base)
            nothing_left(here, here.base)
            assert (here.base / "b").read_bytes() == seen

    asyncio.run(story())


def spoil(path: Path, record: bytes | None) -> None:
    path.unlink() if record is None else path.write_bytes(record)


def test_an_overlay_that_is_lost_is_told_and_its_disk_is_not_taken_for_whole(tmp_path: Path) -> None:
    async def story() -> None:
        entry = overlay.Outsourced("a", str(tmp_path / "a"), "raw", str(tmp_path / "gone"), used=True)
        overlay.note(tmp_path, [entry])
        for _ in range(2):
            with pytest.raises(ToolError) as failed:
                await overlay.fold_back_at_rest(tmp_path)
            assert failed.value.kind == "not-folded-back"
        overlay.note(tmp_path, [overlay.Outsourced("a", entry.original, "raw", entry.overlay)])
        await overlay.fold_back_at_rest(tmp_path)
        assert not (tmp_path / overlay.RECORD).exists()
        (tmp_path / overlay.RECORD).write_text("[{")
        with pytest.raises(ToolError, match="cannot be read"):
            await overlay.fold_back_at_rest(tmp_path)

    asyncio.run(story())


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16M", "none", str(folder)]
    subprocess.run(mount, check=True, timeout=60)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=60)


@pytest.fixture
def durable(small: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, taken for a disk."""
    monkeypatch.setattr(replacement, "_VOLATILE", frozenset())
    return small


@NEEDS_ROOT
def test_a_replacement_that_forgets_or_has_no_room_is_refused(tmp_path: Path, small: Path) -> None:
    original = tmp_path / "a"
    original.touch()
    claims, vm = Claims(), tmp_path / "vm"
    with pytest.raises(RefusedError, match="in memory"):
        claims.refuse_unfit(vm, small, [MIB], [str(original)])
    (small / "a").touch()
    claims.refuse_unfit(vm, small, [MIB], [str(small / "a")])
    with pytest.raises(RefusedError) as refused:
        claims.refuse_unfit(vm, small, [MIB << 20], [str(small / "a")])
    assert refused.value.kind == "replacement-room"
    with pytest.raises(RefusedError) as refused:
        claims.refuse_unfit(vm, small / "nowhere", [MIB], [])
    assert refused.value.kind == "replacement"


@NEEDS_ROOT
def test_disks_that_fit_one_by_one_and_not_together_are_refused_before_the_first_is_outsourced(
    tmp_path: Path, durable: Path
) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path, size=10 * MIB) as (here, _):
            (durable / "other").write_bytes(bytes(4 * MIB))  # 12 MiB are left
            before, sizes = await here.graph(), here.disks.sizes.values()
            assert replacement.needed(sizes) > 12 * MIB > max(replacement.needed([size]) for size in sizes)
            for name in here.disks.sizes:
                with pytest.raises(RefusedError) as refused:
                    await here.disks.outsource(name, durable)
                assert refused.value.kind == "replacement-room"
            assert await here.graph() == before
            nothing_left(here, durable)

    asyncio.run(story())


@NEEDS_ROOT
def test_what_the_disks_of_a_vm_need_is_not_asked_for_again_once_it_is_claimed(
    tmp_path: Path, durable: Path
) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path, size=6 * MIB) as (here, _):
            await here.disks.outsource("a", durable)
            (durable / "other").write_bytes(bytes(8 * MIB))  # as if the guest had written meanwhile
            await here.disks.outsource("b", durable)
            await here.disks.end()
            nothing_left(here, durable)
            with pytest.raises(RefusedError):
                await here.disks.outsource("a", durable)

    asyncio.run(story())


@NEEDS_ROOT
def test_vms_that_move_at_one_time_are_asked_for_room_together(tmp_path: Path, small: Path) -> None:
    claims = Claims()
    one, two, path = tmp_path / "one", tmp_path / "two", str(small / "a")
    (small / "a").touch()
    claims.claim(one, small, [2 * MIB, 5 * MIB], [path])
    with pytest.raises(RefusedError, match="by other VMs that move") as refused:
        claims.claim(two, small, [6 * MIB], [path])
    assert refused.value.kind == "replacement-room"
    claims.refuse_unfit(one, small, [2 * MIB, 5 * MIB], [path])  # its own claim does not stand in its way
    claims.refuse_unfit(two, small, [4 * MIB], [path])
    (small / "korora-one-a-1.qcow2").write_bytes(bytes(5 * MIB))  # what it has written is counted once
    claims.claim(two, small, [5 * MIB], [path])
    claims.release(one)
    claims.release(two)
    with pytest.raises(RefusedError, match="room for 11 MiB"):
        claims.claim(two, small, [12 * MIB], [path])


@NEEDS_ROOT
def test_what_is_brought_nearer_leaves_room_for_the_writes_of_all_disks(tmp_path: Path, small: Path) -> None:
    claims, path = Claims(), str(small / "a")
    (small / "a").touch()
    vms = [tmp_path / name for name in ("one", "two", "three")]
    for vm in vms:
        claims.claim(vm, small, [MIB // 2, MIB // 2], [path])
    spared = sum(2 * claims.to_spare(vm) for vm in vms)
    assert 0 < spared <= 16 * MIB - sum(replacement.needed([MIB // 2] * 2) for _ in vms)
    assert claims.to_spare(tmp_path / "another") == 0


@NEEDS_ROOT
@pytest.mark.parametrize("how", ["low", "full"])
def test_a_replacement_that_runs_full_costs_no_write_and_the_guest_runs_on(
    tmp_path: Path, durable: Path, how: str
) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path) as (here, _):
            before = await here.graph()
            await here.qmp.execute("stop")
            await outsourced(here, durable)
            if how == "full":
                fill(durable / "other")
            await here.qmp.execute("cont")
            if how == "full":
                while (await here.qmp.execute("query-status"))["status"] != "io-error":  # noqa: ASYNC110  QEMU tells, but not here
                    await asyncio.sleep(0.05)
            else:
                (durable / "other").write_bytes(bytes(12 * MIB))
            with pytest.raises(ToolError) as failed:
                await here.disks.copied()
            assert failed.value.kind == "replacement-full"
            await here.disks.end()
            assert (await here.qmp.execute("query-status"))["status"] == "running"
            await is_as_it_was(here, before, durable)

    asyncio.run(story())


@NEEDS_ROOT
def test_what_cannot_be_kept_nearer_is_an_error_there_and_nowhere_else(
    tmp_path: Path, durable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with two_hosts(tmp_path) as (here, there):
            before = await here.graph()
            await here.qmp.execute("stop")
            await there.disks.receive()
            reached = await here.disks.reach("b", there.disks.socket)
            await here.disks.outsource("b", durable)
            monkeypatch.setattr(Claims, "to_spare", lambda *_: 1 << 30)
            fill(durable / "other")
            async with here.disks.nearer("b") as export:
                with pytest.raises(UnreadableError):
                    await asyncio.to_thread(content, export, (2 * MIB, MIB))
            copying = ByDaemon("b", here.disks, reached, QemuImages(), Pace(0, SystemClock()))
            await copying.copy_frozen()
            assert (there.base / "b").read_bytes() == (here.base / "b").read_bytes()
            await here.disks.end()
            assert await here.graph() == before
            await here.qmp.execute("cont")
            await runs_on(here)

    asyncio.run(story())


def fill(path: Path) -> None:
    opened = os.open(path, os.O_CREAT | os.O_WRONLY)
    with suppress(OSError):
        while os.write(opened, bytes(4096)):
            pass
    os.close(opened)
