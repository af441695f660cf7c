"""Real QEMU with all that a VM may have: taps, shared disks, vTPM, Secure Boot; and one that was adopted."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from korora.adapters.hypervisor import network
from korora.adapters.hypervisor.probe.accelerator import newest_kernel
from korora.adapters.hypervisor.qemu import Qemu
from korora.errors import RefusedError, ToolError, UsageError
from korora.model.definition import definition_text, parse_definition
from korora.model.vm import RunState, VmDefinition
from korora.ports.hypervisor import Machine, Place, StreamSettings, StreamState

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]
CLONE_NEWNET = 0x40000000
KERNEL = newest_kernel()
OVMF = Path("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd")
FACTS_ONCE = Path(tempfile.gettempdir()) / f"korora-hw-{os.getpid()}"  # QEMU's, as every test would find them
MAC, OTHER_MAC = "52:54:00:4b:6f:01", "52:54:00:4b:6f:02"


@pytest.fixture(scope="module", autouse=True)
def _facts_once() -> Iterator[None]:
    yield
    shutil.rmtree(FACTS_ONCE, ignore_errors=True)


@pytest.fixture
def base() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="korora-hw-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def in_own_network(story: Callable[[], Awaitable[None]], deadline_s: float = 120) -> None:
    """Run the story in a thread with a network namespace of its own, which has one bridge, br0."""
    failures: list[BaseException] = []

    async def bounded() -> None:
        async with asyncio.timeout(deadline_s):
            await story()

    def whole() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "unshare")
            subprocess.run(["ip", "link", "add", "br0", "mtu", "9000", "type", "bridge"], check=True)
            subprocess.run(["ip", "link", "set", "br0", "up"], check=True)
            asyncio.run(bounded())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=whole)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def links() -> str:
    return subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout


def names() -> list[str]:
    return [line.split(":")[1] for line in links().splitlines()]


@contextlib.contextmanager
def swtpm(directory: Path) -> Iterator[Path]:
    directory.mkdir(parents=True)
    control = directory / "s"
    args = [
        "swtpm",
        "socket",
        "--tpm2",
        "--tpmstate",
        f"dir={directory}",
        "--ctrl",
        f"type=unixio,path={control}",
    ]
    with subprocess.Popen(args) as process:
        try:
            yield control
        finally:
            process.kill()


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(600):
        if holds():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it did not come true")


async def moved(source: Machine, destination: Machine, socket: Path) -> None:
    await destination.listen(socket, StreamSettings())
    await source.send(socket, StreamSettings())
    async for state in source.stream_states():
        if state is StreamState.PRE_SWITCHOVER:
            await source.switch_over()
    assert (await source.stream_status()).state is StreamState.COMPLETED
    assert [state async for state in destination.stream_states()][-1] is StreamState.COMPLETED


@contextlib.asynccontextmanager
async def ended(*machines: Machine) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for machine in machines:
            await machine.quit()


def plain(base: Path, more: str = "") -> VmDefinition:
    head = 'name = "hw"\nmemory = "64M"\naccelerator = "tcg"\nvtpm.enabled = false\n'
    return parse_definition(head + more.format(base=base))


def card(bridge: str, mac: str) -> str:
    return f'[[networks]]\nbridge = "{bridge}"\nmac = "{mac}"\n'


DISKS = """
[[disks]]
path = "{base}/raw, with comma.img"
[[disks]]
path = "{base}/q.qcow2"
format = "qcow2"
"""


def make_disks(base: Path, *more: str) -> None:
    with (base / "raw, with comma.img").open("wb") as raw:
        raw.truncate(16 * 2**20)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *more, base / "q.qcow2", "16M"], check=True)


@pytest.mark.parametrize("first", ["source", "destination"])
def test_shared_disks_belong_to_whichever_side_runs_first(base: Path, first: str) -> None:
    """The disks' locks fence: the other side cannot run. A waiting destination holds no lock."""

    async def story() -> None:
        make_disks(base)
        qemu = Qemu(FACTS_ONCE)
        source = await qemu.start(plain(base, DISKS), Place(base / "a", None), incoming=False)
        async with ended(source):
            destination = await qemu.start(source.definition, Place(base / "b", None), incoming=True)
            async with ended(destination):
                await moved(source, destination, base / "s")
                order = [source, destination] if first == "source" else [destination, source]
                await order[0].resume()
                with pytest.raises(ToolError, match="lock"):
                    await order[1].resume()
                assert await order[0].run_state() is RunState.RUNNING
                refused = RunState.INCOMING if first == "source" else RunState.MIGRATED
                assert await order[1].run_state() is refused

    asyncio.run(story())


def test_two_vms_never_write_one_disk(base: Path) -> None:
    async def story() -> None:
        make_disks(base)
        qemu = Qemu(FACTS_ONCE)
        first = await qemu.start(plain(base, DISKS), Place(base / "a", None), incoming=False)
        async with ended(first):
            with pytest.raises(ToolError, match="lock") as caught:
                await qemu.start(plain(base, DISKS), Place(base / "b", None), incoming=False)
            assert caught.value.kind == "qemu-start"
            assert not (base / "b" / "process.json").exists()
            assert not (base / "b" / "qmp.sock").exists()

    asyncio.run(story())


def test_an_image_that_names_another_file_starts_nothing(base: Path) -> None:
    async def story() -> None:
        make_disks(base, "-o", f"data_file={base}/elsewhere")
        more = '[[disks]]\npath = "{base}/q.qcow2"\nformat = "qcow2"\n'
        with pytest.raises(RefusedError):
            await Qemu(FACTS_ONCE).start(plain(base, more), Place(base / "a", None), incoming=False)

    asyncio.run(story())


def test_taps_join_their_bridges_and_vanish_with_the_vm(base: Path) -> None:
    async def story() -> None:
        more = card("br0", MAC) + card("br0", OTHER_MAC)
        before = names()
        machine = await Qemu(FACTS_ONCE).start(plain(base, more), Place(base / "a", None), incoming=False)
        async with ended(machine):
            assert await asyncio.to_thread(network.bridges) == ("br0",)
            taps = [line for line in links().splitlines() if "master br0" in line]
            assert len(taps) == 2
            assert all("mtu 9000" in line and ",UP" in line for line in taps)
        assert names() == before

    in_own_network(story)


def test_a_bridge_that_is_not_there_is_named_and_nothing_is_left(base: Path) -> None:
    async def story() -> None:
        before = names()
        more = card("br0", MAC) + card("br9", OTHER_MAC)
        with pytest.raises(ToolError, match="br9") as caught:
            await Qemu(FACTS_ONCE).start(plain(base, more), Place(base / "a", None), incoming=False)
        assert caught.value.kind == "no-bridge"
        assert names() == before
        assert not (base / "a" / "process.json").exists()

    in_own_network(story)


def test_a_state_directory_deeper_than_a_socket_path_works(base: Path) -> None:
    async def story() -> None:
        deep = base / ("d" * 90) / ("e" * 90)
        qemu = Qemu(FACTS_ONCE)
        machine = await qemu.start(plain(base), Place(deep / "a", None), incoming=False)
        async with ended(machine):
            assert await machine.run_state() is RunState.RUNNING
            with pytest.raises(UsageError, match="longer than"):
                await machine.send(base / ("x" * 120), StreamSettings())

    asyncio.run(story())


def test_the_memory_that_arrives_is_the_memory_that_left(base: Path) -> None:
    async def story() -> None:
        qemu = Qemu(FACTS_ONCE)
        source = await qemu.start(plain(base), Place(base / "a", None), incoming=False)
        async with ended(source):
            await source.pause()
            destination = await qemu.start(source.definition, Place(base / "b", None), incoming=True)
            async with ended(destination):
                pattern = os.urandom(2**20)
                ram(source).write_bytes_at(32 * 2**20, pattern)
                await moved(source, destination, base / "s")
                assert ram(destination).read_bytes_at(32 * 2**20, len(pattern)) == pattern
                assert source.memory is not None
                source.memory.wipe()
                assert not any(ram(source).read_bytes_at(32 * 2**20, len(pattern)))

    asyncio.run(story())


class Ram:
    """A test's own way to a guest's memory."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write_bytes_at(self, offset: int, data: bytes) -> None:
        with self._path.open("r+b", buffering=0) as file:
            file.seek(offset)
            file.write(data)

    def read_bytes_at(self, offset: int, size: int) -> bytes:
        with self._path.open("rb") as file:
            file.seek(offset)
            return file.read(size)


def ram(machine: Machine) -> Ram:
    folder = Path(f"/proc/{machine.pid}/fd")
    return Ram(next(fd for fd in folder.iterdir() if "memory-backend-memfd" in str(fd.readlink())))


@pytest.mark.skipif(not OVMF.exists(), reason="package ovmf is not installed")
@pytest.mark.skipif(KERNEL is None, reason="no kernel in /boot")
def test_a_secure_boot_guest_moves_with_its_vtpm_card_and_variables(base: Path) -> None:
    async def story() -> None:
        definition = parse_definition(
            f'name = "uefi"\nmemory = "384M"\naccelerator = "tcg"\n'
            f'firmware.kind = "uefi"\nfirmware.secure_boot = true\n'
            f'boot.kernel = "{KERNEL}"\nboot.command_line = "console=ttyS0 panic=0"\n'
            f'[[networks]]\nbridge = "br0"\nmac = "{MAC}"\n'
        )
        qemu = Qemu(FACTS_ONCE)
        with swtpm(base / "a" / "vtpm") as here, swtpm(base / "b" / "vtpm") as there:
            await until(lambda: here.exists() and there.exists())
            source = await qemu.start(definition, Place(base / "a", here), incoming=False)
            async with ended(source):
                console = base / "a" / "console.log"
                await until(lambda: b"Kernel panic" in console.read_bytes())
                assert b"Secure boot enabled" in console.read_bytes()
                with pytest.raises(ToolError, match="variable store"):
                    await qemu.start(source.definition, Place(base / "b", there), incoming=True)
                shutil.copy(base / "a" / "variables.fd", base / "b" / "variables.fd")
                destination = await qemu.start(source.definition, Place(base / "b", there), incoming=True)
                async with ended(destination):
                    await moved(source, destination, base / "s")
                    await destination.resume()
                    assert await destination.run_state() is RunState.RUNNING

    in_own_network(story)


def foreign(base: Path, control: Path, *more: str) -> subprocess.Popen[bytes]:
    args = [
        "qemu-system-x86_64",
        "-name",
        "somebody's",
        "-machine",
        "q35,accel=tcg",
        "-m",
        "96",
        "-nographic",
    ]
    args += ["-drive", f"file={base}/raw, with comma.img".replace(",", ",,") + ",if=virtio,format=raw"]
    args += ["-chardev", f"socket,id=c,path={control}", "-tpmdev", "emulator,id=t,chardev=c"]
    args += ["-device", "tpm-tis,tpmdev=t", "-netdev", "user,id=n", "-device", f"e1000e,netdev=n,mac={MAC}"]
    args += ["-qmp", f"unix:{base}/qmp,server=on,wait=on", *more]
    return subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def test_a_qemu_that_somebody_else_started_is_adopted_and_moves(base: Path) -> None:
    async def story() -> None:
        make_disks(base)
        with swtpm(base / "a" / "vtpm") as here, swtpm(base / "b" / "vtpm") as there:
            await until(lambda: here.exists() and there.exists())
            with foreign(base, here) as started:
                try:
                    await until((base / "qmp").exists)
                    qemu = Qemu(FACTS_ONCE)
                    source = await qemu.adopt(base / "qmp")
                    assert source.pid == started.pid
                    told = source.definition
                    assert (told.name, told.adopted, told.vtpm) == ("somebody-s", True, True)
                    assert (told.machine, told.accelerator, told.cpu_model) == ("pc-q35-7.2", "tcg", "qemu64")
                    assert told.disks[0].path == f"{base}/raw, with comma.img"
                    assert source.memory is None
                    wire = parse_definition(definition_text(told))
                    destination = await qemu.start(wire, Place(base / "b", there), incoming=True)
                    async with ended(destination):
                        assert destination.memory is not None
                        assert destination.memory.prove_clean().clean
                        await moved(source, destination, base / "s")
                        await source.quit()
                        await destination.resume()
                        assert await destination.run_state() is RunState.RUNNING
                finally:
                    started.kill()

    asyncio.run(story())


def test_an_adopted_vm_that_cannot_be_made_elsewhere_is_refused_there(base: Path) -> None:
    async def story() -> None:
        make_disks(base)
        with swtpm(base / "a" / "vtpm") as here:
            await until(here.exists)
            with foreign(
                base, here, "-virtfs", f"local,path={base},mount_tag=x,security_model=none"
            ) as started:
                try:
                    await until((base / "qmp").exists)
                    qemu = Qemu(FACTS_ONCE)
                    source = await qemu.adopt(base / "qmp")
                    assert source.definition.hardware == ()
                    assert "-virtfs" in source.definition.immovable
                    with pytest.raises(RefusedError) as caught:
                        await qemu.start(source.definition, Place(base / "b", here), incoming=True)
                    assert caught.value.kind == "adopted-hardware"
                    await source.close()
                finally:
                    started.kill()

    asyncio.run(story())


def test_an_adopted_vm_whose_disk_has_another_file_behind_it_says_why_it_stays(base: Path) -> None:
    async def story() -> None:
        make_disks(base)
        overlay = base / "overlay.qcow2"
        backing = ["-b", str(base / "q.qcow2"), "-F", "qcow2", str(overlay)]
        await asyncio.to_thread(
            subprocess.run, ["qemu-img", "create", "-q", "-f", "qcow2", *backing], check=True
        )
        with swtpm(base / "a" / "vtpm") as here:
            await until(here.exists)
            drive = f"file={overlay},if=virtio,format=qcow2"
            with foreign(base, here, "-drive", drive) as started:
                try:
                    await until((base / "qmp").exists)
                    qemu = Qemu(FACTS_ONCE)
                    source = await qemu.adopt(base / "qmp")
                    assert source.definition.hardware == ()
                    assert str(overlay) in source.definition.immovable
                    # A peer that says otherwise of the same disk is not believed.
                    told = replace(source.definition, hardware=("-drive", drive), immovable="")
                    with pytest.raises(RefusedError) as caught:
                        await qemu.start(told, Place(base / "b", here), incoming=True)
                    assert caught.value.kind == "backing-differs"
                    await source.close()
                finally:
                    started.kill()

    asyncio.run(story())


def test_hardware_that_names_a_file_beside_an_empty_text_starts_nothing(base: Path) -> None:
    async def story() -> None:
        qemu = Qemu(FACTS_ONCE)
        words = ("-fw_cfg", f"opt/x,string=,file={base}/secret")
        asked = replace(plain(base), adopted=True, vtpm=False, hardware=words)
        with pytest.raises(RefusedError) as caught:
            qemu.files(asked)
        assert caught.value.kind == "adopted-hardware"
        with pytest.raises(RefusedError) as caught:
            await qemu.start(asked, Place(base / "b", None), incoming=True)
        assert caught.value.kind == "adopted-hardware"
        assert not (base / "b").exists()

    asyncio.run(story())


def test_a_process_that_was_never_recorded_is_ended_and_not_taken_over(base: Path) -> None:
    async def story() -> None:
        place = Place(base / "a", None)
        machine = await Qemu(FACTS_ONCE).start(plain(base), place, incoming=True)
        await machine.close()
        (base / "a" / "process.json").unlink()
        assert await Qemu(FACTS_ONCE).attach(plain(base), place) is None
        assert not Path(f"/proc/{machine.pid}").exists()
        again = await Qemu(FACTS_ONCE).start(plain(base), place, incoming=False)
        async with ended(again):
            assert await again.run_state() is RunState.RUNNING

    asyncio.run(story())


def test_a_start_that_is_cancelled_leaves_nothing(base: Path) -> None:
    async def story() -> None:
        qemu, place = Qemu(FACTS_ONCE), Place(base / "a", None)
        await qemu.pinned(plain(base))
        for wait_s in (0.0, 0.002, 0.01, 0.03, 0.06, 0.1):
            starting = asyncio.create_task(qemu.start(plain(base), place, incoming=False))
            await asyncio.sleep(wait_s)
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await (await starting).quit()
            assert await qemu.attach(plain(base), place) is None
            assert str(base).encode() not in b"".join(map(working_directory, Path("/proc").glob("[0-9]*")))

    asyncio.run(story())


def working_directory(process: Path) -> bytes:
    try:
        return os.fsencode((process / "cwd").readlink())
    except OSError:
        return b""


def test_a_socket_that_is_not_there_cannot_be_adopted(base: Path) -> None:
    with pytest.raises(UsageError) as caught:
        asyncio.run(Qemu(FACTS_ONCE).adopt(base / "none"))
    assert caught.value.kind == "no-socket"
