"""What every hypervisor must do. QEMU runs here as 64 MiB machines under TCG without a guest system."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from fakes.hypervisor import FakeHypervisor, World
from korora.adapters.hypervisor.qemu import Qemu
from korora.adapters.image.qemu_nbd import QemuImages
from korora.errors import KororaError, RefusedError, ToolError
from korora.model.definition import definition_text, parse_definition
from korora.model.image import Layer, NbdExport
from korora.model.vm import Backing, Disk, RunState, VmDefinition
from korora.ports.hypervisor import Hypervisor, Machine, Place, StreamSettings, StreamState

DEADLINE_S = 60
MIB = 1 << 20
FACTS_ONCE = Path(tempfile.gettempdir()) / f"korora-conformance-{os.getpid()}"
KINDS = [
    "fake",
    pytest.param(
        "qemu",
        marks=[
            pytest.mark.end_to_end,
            pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
        ],
    ),
]
VM = parse_definition(
    'name = "tiny"\nmemory = "64M"\naccelerator = "tcg"\n[vtpm]\nenabled = false\n', "the tests' VM"
)


@dataclass(slots=True)
class Bench:
    """One machine with a hypervisor; every VM that a test starts here is ended with it."""

    hypervisor: Hypervisor
    base: Path
    again: Callable[[], Hypervisor]  # as a restarted daemon sees the same machine
    kill: Callable[[Machine], None]
    write: Callable[[Machine, str, int], Awaitable[None]]  # the first MiB of a disk, as its guest would
    started: list[Machine] = field(default_factory=list)

    def place(self, name: str) -> Place:
        return Place(self.base / name, None)

    async def start(self, name: str = "a", *, incoming: bool = False, vm: VmDefinition = VM) -> Machine:
        machine = await self.hypervisor.start(vm, self.place(name), incoming=incoming)
        self.started.append(machine)
        return machine

    async def clear(self) -> None:
        for machine in self.started:
            with contextlib.suppress(KororaError, ProcessLookupError):
                await machine.quit()
        for name in ("a", "b", "c"):
            left = await self.again().attach(VM, self.place(name))
            if left is not None:
                await left.quit()


@pytest.fixture(scope="module", autouse=True)
def _probe_cache() -> Iterator[None]:
    yield
    shutil.rmtree(FACTS_ONCE, ignore_errors=True)


@pytest.fixture(params=KINDS)
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Callable[[Bench], Awaitable[None]]], None]]:
    base = Path(tempfile.mkdtemp(prefix="korora-hv-"))

    def bench() -> Bench:
        if request.param == "fake":
            world = World(deaf=True)  # as a guest without a system is
            return Bench(
                FakeHypervisor("a", world),
                base,
                lambda: FakeHypervisor("a", world),
                lambda machine: _fake_guest(machine).die(),
                _write_file,
            )
        return Bench(
            Qemu(FACTS_ONCE),
            base,
            lambda: Qemu(FACTS_ONCE),
            lambda machine: os.kill(machine.pid, signal.SIGKILL),
            _write_through_qemu,
        )

    async def whole(story: Callable[[Bench], Awaitable[None]]) -> None:
        made = bench()
        try:
            async with asyncio.timeout(DEADLINE_S):
                await story(made)
        finally:
            await made.clear()

    yield lambda story: asyncio.run(whole(story))
    shutil.rmtree(base, ignore_errors=True)


def _fake_guest(machine: Machine) -> Any:
    return machine.guest  # type: ignore[attr-defined]


async def _write_file(machine: Machine, disk: str, value: int) -> None:
    (path,) = [Path(one.path) for one in machine.definition.disks if one.name == disk]
    with path.open("r+b") as file:
        file.write(bytes([value]) * MIB)


async def _write_through_qemu(machine: Machine, disk: str, value: int) -> None:
    for words in (f"write -P {value} 0 1M", "flush"):
        line = f'qemu-io -d /machine/peripheral/{disk}/virtio-backend "{words}"'
        said = await machine._qmp.execute(  # type: ignore[attr-defined]
            "human-monitor-command", {"command-line": line}
        )
        assert not said.strip(), said


Run = Callable[[Callable[[Bench], Awaitable[None]]], None]


async def states_until(machine: Machine, wanted: StreamState) -> list[StreamState]:
    seen = []
    async for state in machine.stream_states():
        seen.append(state)
        if state is wanted:
            return seen
    raise AssertionError(f"{wanted} never came: {seen}")


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(400):
        if await holds():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come true")


async def is_in(machine: Machine, state: RunState) -> bool:
    return await machine.run_state() is state


async def _answer(value: bool) -> bool:
    return value


@contextlib.asynccontextmanager
async def moving(
    bench: Bench, settings: StreamSettings | None = None
) -> AsyncIterator[tuple[Machine, Machine]]:
    """A source at pre-switchover and its destination."""
    settings = settings or StreamSettings()
    source = await bench.start("a")
    destination = await bench.start("b", incoming=True, vm=source.definition)
    socket = bench.base / "stream.sock"
    await destination.listen(socket, settings)
    await source.send(socket, settings)
    await states_until(source, StreamState.PRE_SWITCHOVER)
    yield source, destination


async def moved(source: Machine, destination: Machine) -> None:
    await source.switch_over()
    await states_until(source, StreamState.COMPLETED)
    await states_until(destination, StreamState.COMPLETED)


def test_facts_name_what_a_precheck_needs(run: Run) -> None:
    async def story(bench: Bench) -> None:
        facts = await bench.hypervisor.facts()
        assert facts.name
        assert facts.version[0].isdigit()
        assert {"q35", "pc-q35-7.2"} <= set(facts.machines)
        assert "qemu64" in facts.cpu_models
        assert {"return-path", "pause-before-switchover", "events"} <= set(facts.capabilities)
        assert facts.accelerator in {"kvm", "tcg"}
        assert facts.accelerator_note.count("\n") == 0

    run(story)


def test_a_fresh_vm_runs_and_can_be_paused_and_resumed(run: Run) -> None:
    async def story(bench: Bench) -> None:
        machine = await bench.start()
        assert await machine.run_state() is RunState.RUNNING
        await machine.pause()
        assert await machine.run_state() is RunState.PAUSED
        await machine.resume()
        assert await machine.run_state() is RunState.RUNNING
        assert machine.definition.name == "tiny"
        assert machine.pid > 1

    run(story)


def test_an_incoming_vm_waits_with_clean_memory(run: Run) -> None:
    async def story(bench: Bench) -> None:
        machine = await bench.start(incoming=True)
        assert await machine.run_state() is RunState.INCOMING
        assert machine.memory is not None
        proof = machine.memory.prove_clean()
        assert (proof.clean, proof.allocated_bytes) == (True, 0)
        machine.memory.fault_in()
        assert await machine.run_state() is RunState.INCOMING

    run(story)


def test_the_memory_of_a_vm_that_ran_is_not_called_clean(run: Run) -> None:
    async def story(bench: Bench) -> None:
        machine = await bench.start()
        assert machine.memory is not None
        memory = machine.memory
        await until(lambda: _answer(not memory.prove_clean().clean))

    run(story)


def test_a_vm_is_found_again_after_a_restart_of_the_daemon(run: Run) -> None:
    async def story(bench: Bench) -> None:
        machine = await bench.start()
        pinned, pid = machine.definition, machine.pid
        await machine.close()
        found = await bench.again().attach(VM, bench.place("a"))
        assert found is not None
        bench.started.append(found)
        assert (found.pid, found.definition) == (pid, pinned)
        assert await found.run_state() is RunState.RUNNING

    run(story)


def test_an_incoming_vm_found_again_is_still_incoming(run: Run) -> None:
    async def story(bench: Bench) -> None:
        async with moving(bench) as (source, destination):
            await moved(source, destination)
            await destination.close()
            found = await bench.again().attach(VM, bench.place("b"))
            assert found is not None
            bench.started.append(found)
            assert await found.run_state() is RunState.INCOMING
            await found.resume()
            await found.pause()
            assert await found.run_state() is RunState.PAUSED

    run(story)


def test_nothing_is_found_where_no_vm_was_started_or_the_process_ended(run: Run) -> None:
    async def story(bench: Bench) -> None:
        assert await bench.hypervisor.attach(VM, bench.place("c")) is None
        machine = await bench.start()
        await machine.close()
        bench.kill(machine)
        await asyncio.sleep(0.2)
        assert await bench.again().attach(VM, bench.place("a")) is None

    run(story)


def test_one_vm_is_not_started_twice_in_one_place(run: Run) -> None:
    async def story(bench: Bench) -> None:
        machine = await bench.start()
        with pytest.raises(ToolError) as caught:
            await bench.start()
        assert caught.value.kind == "already-running"
        assert await machine.run_state() is RunState.RUNNING

    run(story)


@pytest.mark.parametrize("channels", [0, 2])
def test_a_vm_moves_and_runs_only_when_told(run: Run, channels: int) -> None:
    async def story(bench: Bench) -> None:
        async with moving(bench, StreamSettings(channels=channels)) as (source, destination):
            assert await source.run_state() is RunState.PAUSED
            status = await source.stream_status()
            assert status.total_bytes > 0
            await moved(source, destination)
            await until(lambda: is_in(source, RunState.MIGRATED))  # QEMU says so a moment after the stream
            assert await destination.run_state() is RunState.INCOMING
            done = await source.stream_status()
            assert done.state is StreamState.COMPLETED
            assert done.downtime_ms is not None
            await destination.resume()
            assert await destination.run_state() is RunState.RUNNING
            await destination.announce()

    run(story)


def test_the_states_come_in_order(run: Run) -> None:
    async def story(bench: Bench) -> None:
        async with moving(bench) as (source, destination):
            await source.switch_over()
            seen = await states_until(source, StreamState.COMPLETED)
            order = [StreamState.PRE_SWITCHOVER, StreamState.DEVICE, StreamState.COMPLETED]
            assert seen == [state for state in order if state in seen]
            assert [state async for state in destination.stream_states()][-1] is StreamState.COMPLETED

    run(story)


def test_a_slow_stream_comes_to_switchover_once_the_rest_is_allowed_to_take_its_time(run: Run) -> None:
    async def story(bench: Bench) -> None:
        source = await bench.start("a")
        destination = await bench.start("b", incoming=True, vm=source.definition)
        socket = bench.base / "stream.sock"
        slow = StreamSettings(downtime_limit_ms=1, max_bandwidth_bytes_per_s=2**16)
        await destination.listen(socket, slow)
        await source.send(socket, slow)
        await source.allow_downtime(2_000_000)  # QEMU's own limit
        await states_until(source, StreamState.PRE_SWITCHOVER)
        await source.cancel_stream()
        assert await source.run_state() is RunState.RUNNING

    run(story)


def test_a_vm_moves_on_from_where_it_arrived(run: Run) -> None:
    async def story(bench: Bench) -> None:
        async with moving(bench) as (source, destination):
            await moved(source, destination)
            await source.quit()
            await destination.resume()
            third = await bench.start("c", incoming=True, vm=destination.definition)
            socket = bench.base / "second.sock"
            await third.listen(socket, StreamSettings())
            await destination.send(socket, StreamSettings())
            await states_until(destination, StreamState.PRE_SWITCHOVER)
            await moved(destination, third)
            await third.resume()
            assert await third.run_state() is RunState.RUNNING

    run(story)


def test_cancel_before_switchover_lets_the_vm_run_on_and_may_be_repeated(run: Run) -> None:
    async def story(bench: Bench) -> None:
        async with moving(bench) as (source, _):
            await source.cancel_stream()
            assert await source.run_state() is RunState.RUNNING
            assert (await source.stream_status()).state in {StreamState.CANCELLED, StreamState.NONE}
            await source.cancel_stream()
            assert await source.run_state() is RunState.RUNNING

    run(story)


def test_a_cancelled_move_can_be_tried_again(run: Run) -> None:
    async def story(bench: Bench) -> None:
        async with moving(bench) as (source, destination):
            await source.cancel_stream()
            await destination.quit()
            second = await bench.start("c", incoming=True, vm=source.definition)
            socket = bench.base / "second.sock"
            await second.listen(socket, StreamSettings())
            await source.send(socket, StreamSettings())
            await states_until(source, StreamState.PRE_SWITCHOVER)
            await moved(source, second)

    run(story)


def test_cancel_without_a_stream_changes_nothing(run: Run) -> None:
    async def story(bench: Bench) -> None:
        machine = await bench.start()
        await machine.cancel_stream()
        assert await machine.run_state() is RunState.RUNNING

    run(story)


def test_cancel_after_completion_is_refused(run: Run) -> None:
    async def story(bench: Bench) -> None:
        async with moving(bench) as (source, destination):
            await moved(source, destination)
            with pytest.raises(ToolError) as caught:
                await source.cancel_stream()
            assert caught.value.kind == "stream-completed"
            assert await source.run_state() is RunState.MIGRATED

    run(story)


def test_a_vm_that_was_paused_moves_and_is_paused_again_after_cancel(run: Run) -> None:
    async def story(bench: Bench) -> None:
        source = await bench.start("a")
        await source.pause()
        destination = await bench.start("b", incoming=True, vm=source.definition)
        socket = bench.base / "stream.sock"
        await destination.listen(socket, StreamSettings())
        await source.send(socket, StreamSettings())
        await states_until(source, StreamState.PRE_SWITCHOVER)
        await source.cancel_stream()
        assert await source.run_state() is RunState.PAUSED
        await source.resume()
        assert await source.run_state() is RunState.RUNNING

    run(story)


def test_a_socket_that_nobody_listens_on_fails_the_move_and_the_vm_runs(run: Run) -> None:
    async def story(bench: Bench) -> None:
        source = await bench.start("a")
        with contextlib.suppress(ToolError):
            await source.send(bench.base / "nobody.sock", StreamSettings())
            await states_until(source, StreamState.FAILED)
        assert await source.run_state() is RunState.RUNNING

    run(story)


def test_a_destination_that_dies_before_switchover_fails_the_move_and_the_vm_runs(run: Run) -> None:
    async def story(bench: Bench) -> None:
        async with moving(bench) as (source, destination):
            bench.kill(destination)
            with contextlib.suppress(ToolError):
                await source.switch_over()
            await states_until(source, StreamState.FAILED)
            await until(lambda: is_in(source, RunState.RUNNING))
            assert await destination.run_state() is RunState.STOPPED

    run(story)


def test_a_destination_that_is_fed_garbage_never_runs(run: Run) -> None:
    async def story(bench: Bench) -> None:
        destination = await bench.start("b", incoming=True)
        socket = bench.base / "stream.sock"
        await destination.listen(socket, StreamSettings())
        _, writer = await asyncio.open_unix_connection(str(socket))
        writer.write(b"not a migration stream" * 10)
        writer.close()
        with contextlib.suppress(ToolError):
            await states_until(destination, StreamState.FAILED)
        assert await destination.run_state() in {RunState.STOPPED, RunState.INCOMING}

    run(story)


def test_after_quit_the_process_is_gone_and_every_method_says_so(run: Run) -> None:
    async def story(bench: Bench) -> None:
        machine = await bench.start()
        pid = machine.pid
        await machine.quit()
        assert not Path(f"/proc/{pid}").exists()
        assert await machine.run_state() is RunState.STOPPED
        for attempt in (machine.pause, machine.resume, machine.cpu_features, machine.stream_status):
            with pytest.raises(ToolError):
                await attempt()
        await machine.quit()
        assert await bench.again().attach(VM, bench.place("a")) is None

    run(story)


def test_a_killed_vm_is_stopped_and_can_be_started_again(run: Run) -> None:
    async def story(bench: Bench) -> None:
        machine = await bench.start()
        bench.kill(machine)
        await until(lambda: is_in(machine, RunState.STOPPED))
        with pytest.raises(ToolError):
            await machine.pause()
        await machine.quit()
        again = await bench.start()
        assert await again.run_state() is RunState.RUNNING

    run(story)


def test_a_vm_that_ignores_the_power_button_runs_on(run: Run) -> None:
    async def story(bench: Bench) -> None:
        machine = await bench.start()
        with pytest.raises(ToolError) as caught:
            await machine.power_down(0.3)
        assert caught.value.kind == "did-not-stop"
        assert "--force" in caught.value.remedy
        assert await machine.run_state() is RunState.RUNNING

    run(story)


def test_the_sources_memory_is_wiped_after_the_move(run: Run) -> None:
    async def story(bench: Bench) -> None:
        async with moving(bench) as (source, destination):
            await moved(source, destination)
            assert source.memory is not None
            step = source.memory.wipe()
            assert step.verified
            assert step.bytes > 0
            assert step.method
            assert source.memory.prove_clean().clean
            await source.quit()
            with pytest.raises(ToolError):
                source.memory.wipe()

    run(story)


def test_the_cpu_of_a_running_vm_is_what_its_model_promises_here(run: Run) -> None:
    async def story(bench: Bench) -> None:
        machine = await bench.start()
        live = await machine.cpu_features()
        promised = await bench.hypervisor.cpu_features(machine.definition)
        assert any(live.values())
        assert {name for name, on in live.items() if on} <= {name for name, on in promised.items() if on}

    run(story)


# -- the disks of a running VM ------------------------------------------------------------------------------


def with_disks(base: Path, count: int) -> VmDefinition:
    """Disks of 3 MiB, full of ones, twos, …"""
    text = definition_text(VM)
    for number in range(count):
        path = base / f"disk{number}.raw"
        path.write_bytes(bytes([number + 1]) * 3 * MIB)
        text += f'[[disks]]\nname = "disk{number}"\npath = "{path}"\n'
    return parse_definition(text, "a VM with disks")


async def read(export: NbdExport) -> bytes:
    def blocking() -> bytes:
        with QemuImages(connections=1).open_export(export) as image:
            return next(iter(image.each([(0, image.size)], bytes)))

    return await asyncio.to_thread(blocking)


def test_disks_of_a_running_vm_are_read_as_they_were_at_one_moment_while_it_writes_on(run: Run) -> None:
    async def story(bench: Bench) -> None:
        vm = with_disks(bench.base, 2)
        machine = await bench.start("a", vm=vm)
        for before, after in ((1, 71), (71, 72)):  # and once more
            scratch = bench.base / f"scratch{after}"
            scratch.mkdir(mode=0o700)
            async with machine.disks_at_one_moment(scratch) as disks:
                assert set(disks) == {"disk0", "disk1"}
                for one in vm.disks:
                    assert disks[one.name].layers == (Layer(one.path, one.format),)
                assert await machine.run_state() is RunState.RUNNING
                await bench.write(machine, "disk0", after)
                assert await read(disks["disk0"]) == bytes([before]) * MIB + bytes([1]) * 2 * MIB
                assert await read(disks["disk1"]) == bytes([2]) * 3 * MIB
            # What the guest wrote meanwhile is on its disk, and goes on being written there.
            assert (bench.base / "disk0.raw").read_bytes()[:MIB] == bytes([after]) * MIB
        await bench.write(machine, "disk1", 9)
        assert (bench.base / "disk1.raw").read_bytes()[:MIB] == bytes([9]) * MIB

    run(story)


def test_a_paused_vm_stays_paused_while_its_disks_are_read(run: Run) -> None:
    async def story(bench: Bench) -> None:
        machine = await bench.start("a", vm=with_disks(bench.base, 1))
        await machine.pause()
        async with machine.disks_at_one_moment(bench.base) as disks:
            assert await read(disks["disk0"]) == bytes([1]) * 3 * MIB
            assert await machine.run_state() is RunState.PAUSED
        assert await machine.run_state() is RunState.PAUSED

    run(story)


def test_disks_move_while_their_vm_writes_and_are_the_same_there_once_they_are_cut(run: Run) -> None:
    async def story(bench: Bench) -> None:
        vm = with_disks(bench.base, 2)
        there_vm = await with_empty_disks(bench, vm)
        source = await bench.start("a", vm=vm)
        target = await bench.start("b", vm=there_vm, incoming=True)
        names = ["disk0", "disk1"]
        here, there = await source.moving_disks(names), await target.moving_disks(names)
        assert dict(here.sizes) == dict(there.sizes) == dict.fromkeys(names, 3 * MIB)
        await there.receive()
        for name in names:
            await here.mirror(name, there.socket)
        while not (await here.copied()).ready:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.02)
        for one in (here, there):
            async with one.written("disk0") as export:
                assert await read(export) == bytes([1]) * 3 * MIB
        await bench.write(source, "disk0", 71)
        await source.pause()
        await here.cut()
        for one in (here, there):
            async with one.written("disk0") as export:
                assert (0, MIB) in await changed(export)
                assert await read(export) == bytes([71]) * MIB + bytes([1]) * 2 * MIB
            await one.end()
        await source.resume()
        await bench.write(source, "disk0", 72)  # which is not written there any more
        content = [Path(disk.path).read_bytes() for disk in there_vm.disks]
        assert content == [bytes([71]) * MIB + bytes([1]) * 2 * MIB, bytes([2]) * 3 * MIB]

    run(story)


def test_disks_whose_writes_go_elsewhere_are_the_same_there_and_whole_again_here(run: Run) -> None:
    async def story(bench: Bench) -> None:
        vm = with_disks(bench.base, 1)
        there_vm = await with_empty_disks(bench, vm)
        source = await bench.start("a", vm=vm)
        target = await bench.start("b", vm=there_vm, incoming=True)
        here, there = await source.moving_disks(["disk0"]), await target.moving_disks(["disk0"])
        folder = bench.base / "elsewhere"
        await there.receive()
        with pytest.raises(RefusedError) as refused:
            await here.outsource("disk0", folder)
        assert refused.value.kind == "replacement"
        folder.mkdir()
        await here.outsource("disk0", folder)
        await source.moving_disks(["disk0"])  # who only asks changes nothing
        made = sorted(str(path) for path in folder.iterdir())
        assert {Path(path).stat().st_mode & 0o777 for path in made} == {0o600}
        assert sorted(bench.hypervisor.replacements(bench.place("a").directory)) == made
        assert here.room_nearer("disk0") > 0
        reached = await here.reach("disk0", there.socket)
        content = bytes([1]) * 3 * MIB
        for given in (here.nearer, here.frozen):
            async with given("disk0") as export:
                assert await read(export) == content
        await asyncio.to_thread(reached.put, 0, content[:MIB])
        await asyncio.to_thread(reached.put, 2 * MIB, content[:MIB])
        await asyncio.to_thread(reached.flush)
        filled = await there.fill("disk0")
        await asyncio.to_thread(filled.put, MIB, content[:MIB])
        await asyncio.to_thread(filled.drain)
        assert await asyncio.to_thread(filled.read, 0, 2 * MIB) == content[: 2 * MIB]
        await asyncio.to_thread(filled.leave)
        await bench.write(source, "disk0", 71)
        assert (await here.copied()).ready
        await source.pause()
        async with here.written("disk0") as export:
            assert (0, MIB) in await changed(export)
            assert await read(export) == bytes([71]) * MIB + bytes([1]) * 2 * MIB
        await asyncio.to_thread(reached.put, 0, bytes([71]) * MIB)
        await asyncio.to_thread(reached.leave)
        await here.cut()
        async with there.written("disk0") as export:
            assert await read(export) == bytes([71]) * MIB + bytes([1]) * 2 * MIB
        await here.stand_by()
        await there.end()
        await here.end()
        assert not list(folder.iterdir())
        assert bench.hypervisor.replacements(bench.place("a").directory) == ()
        contents = [Path(one.disks[0].path).read_bytes() for one in (vm, there_vm)]
        assert contents == [bytes([71]) * MIB + bytes([1]) * 2 * MIB] * 2

    run(story)


def test_a_vm_that_was_sent_and_comes_back_has_what_it_wrote_elsewhere(run: Run) -> None:
    async def story(bench: Bench) -> None:
        vm = with_disks(bench.base, 1)
        there_vm = await with_empty_disks(bench, vm)
        source = await bench.start("a", vm=vm)
        target = await bench.start("b", vm=there_vm, incoming=True)
        here, there = await source.moving_disks(["disk0"]), await target.moving_disks(["disk0"])
        await there.receive()
        await here.outsource("disk0", bench.base)
        reached = await here.reach("disk0", there.socket)
        await bench.write(source, "disk0", 71)
        await asyncio.to_thread(reached.leave)
        socket = bench.base / "stream.sock"
        await target.listen(socket, StreamSettings())
        await source.send(socket, StreamSettings())
        await states_until(source, StreamState.PRE_SWITCHOVER)
        await here.cut()
        await here.stand_by()
        await there.end()
        await moved(source, target)
        await source.close()
        await target.quit()
        found = await bench.again().attach(vm, bench.place("a"))
        assert found is not None
        bench.started.append(found)
        assert await found.run_state() is RunState.MIGRATED
        await found.resume()
        await found.moving_disks(["disk0"])
        assert bench.hypervisor.replacements(bench.place("a").directory) == ()
        assert Path(vm.disks[0].path).read_bytes() == bytes([71]) * MIB + bytes([1]) * 2 * MIB
        assert await found.run_state() is RunState.RUNNING
        await bench.write(found, "disk0", 72)

    run(story)


def test_a_disk_is_looked_at_before_it_moves_and_a_capped_mirror_ends_as_any(run: Run) -> None:
    async def story(bench: Bench) -> None:
        vm = with_disks(bench.base, 1)
        there_vm = await with_empty_disks(bench, vm)
        source = await bench.start("a", vm=vm)
        target = await bench.start("b", vm=there_vm, incoming=True)
        here, there = await source.moving_disks(["disk0"]), await target.moving_disks(["disk0"])
        before = await here.load()
        async with here.shown("disk0") as export:
            assert await read(export) == bytes([1]) * 3 * MIB
        assert (await here.load() - before).waited_s >= 0
        here.refuse_unfit(bench.base)
        with pytest.raises(RefusedError) as refused:
            here.refuse_unfit(bench.base / "nowhere")
        assert refused.value.kind == "replacement"
        await there.receive()
        await here.mirror("disk0", there.socket, 64 * MIB)
        while not (await here.copied()).ready:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.02)
        await bench.write(source, "disk0", 71)
        await source.pause()
        await here.cut()
        await here.stand_by()
        for one in (here, there):
            await one.end()
        assert Path(there_vm.disks[0].path).read_bytes() == bytes([71]) * MIB + bytes([1]) * 2 * MIB

    run(story)


@pytest.mark.parametrize("which", ["daemon", "process", "both"])
def test_whatever_was_killed_meanwhile_the_disks_hold_what_the_guest_wrote(run: Run, which: str) -> None:
    async def story(bench: Bench) -> None:
        vm = with_disks(bench.base, 1)
        source = await bench.start("a", vm=vm)
        here = await source.moving_disks(["disk0"])
        await here.outsource("disk0", bench.base)
        await bench.write(source, "disk0", 71)
        if which != "process":
            await source.close()
        if which != "daemon":
            bench.kill(source)
            await asyncio.sleep(0.2)
        if which == "process":
            found: Machine | None = await bench.hypervisor.start(vm, bench.place("a"), incoming=False)
        else:
            found = await bench.again().attach(vm, bench.place("a"))
        assert (found is None) is (which == "both")
        if found is not None:
            bench.started.append(found)
            assert await found.run_state() is RunState.RUNNING
        assert bench.hypervisor.replacements(bench.place("a").directory) == ()
        assert not list(bench.base.glob("korora-*"))
        assert Path(vm.disks[0].path).read_bytes() == bytes([71]) * MIB + bytes([1]) * 2 * MIB

    run(story)


def test_disks_of_a_stopped_vm_move_and_nobody_else_has_them_meanwhile(run: Run) -> None:
    async def story(bench: Bench) -> None:
        vm = with_disks(bench.base, 2)
        there_vm = await with_empty_disks(bench, vm)
        folders = [bench.base / "x", bench.base / "y"]
        for folder in folders:
            folder.mkdir(mode=0o700)
        here = await bench.hypervisor.disks_at_rest(vm.disks, folders[0], writable=False)
        there = await bench.hypervisor.disks_at_rest(there_vm.disks, folders[1], writable=True)
        try:
            await there.receive()
            for name in here.sizes:
                await here.mirror(name, there.socket)
            while not (await here.copied()).ready:  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.02)
            await here.cut()
            for one, number in (("disk0", 1), ("disk1", 2)):
                async with there.written(one) as export:
                    assert await read(export) == bytes([number]) * 3 * MIB
        finally:
            await here.end()
            await there.end()
        assert [list(folder.iterdir()) for folder in folders] == [[], []]
        assert [Path(disk.path).read_bytes()[0] for disk in there_vm.disks] == [1, 2]

    run(story)


def test_disks_that_a_vm_runs_on_are_not_written_to_as_if_at_rest(run: Run) -> None:
    async def story(bench: Bench) -> None:
        vm = with_disks(bench.base, 1)
        await bench.start("a", vm=vm)
        with pytest.raises(ToolError):
            await received(bench, vm)

    async def received(bench: Bench, vm: VmDefinition) -> None:
        held = await bench.hypervisor.disks_at_rest(vm.disks, bench.base, writable=True)
        try:
            await held.receive()
        finally:
            await held.end()

    run(story)


async def changed(export: NbdExport) -> list[tuple[int, int]]:
    """The whole MiB that are told as written, singly."""

    def blocking() -> list[tuple[int, int]]:
        with QemuImages(connections=1).open_export(export) as image:
            return [
                (at, MIB) for begin, length in image.written() for at in range(begin, begin + length, MIB)
            ]

    return await asyncio.to_thread(blocking)


async def with_empty_disks(bench: Bench, vm: VmDefinition) -> VmDefinition:
    folder = bench.base / "there"
    disks = tuple(replace(disk, path=str(folder / f"{disk.name}.raw")) for disk in vm.disks)
    for disk in disks:
        await bench.hypervisor.make_disk(disk, 3 * MIB)
    return replace(vm, disks=disks)


def test_an_image_is_never_made_where_a_file_is_already(run: Run) -> None:
    async def story(bench: Bench) -> None:
        path = bench.base / "there.raw"
        path.write_bytes(b"precious")
        with pytest.raises(RefusedError) as refused:
            await bench.hypervisor.make_disk(Disk(str(path)), MIB)
        assert refused.value.kind == "disk-exists"
        assert path.read_bytes() == b"precious"

    run(story)


def test_an_image_is_made_over_others_and_shows_what_lies_beneath(run: Run) -> None:
    async def story(bench: Bench) -> None:
        beneath, over, vm = await with_disk_over_another(bench)
        machine = await bench.start("a", vm=vm)
        disks = await machine.moving_disks(["disk0"])
        async with disks.written("disk0") as export:
            assert await read(export) == bytes([1]) * 3 * MIB
        await bench.write(machine, "disk0", 71)
        async with disks.written("disk0") as export:
            assert await read(export) == bytes([71]) * MIB + bytes([1]) * 2 * MIB
        await disks.end()
        assert beneath.read_bytes() == bytes([1]) * 3 * MIB
        assert over.stat().st_blocks * 512 < 4 * MIB

    run(story)


@pytest.mark.parametrize("which", ["nothing", "process", "both"])
def test_what_was_outsourced_is_folded_into_a_disk_over_others_and_no_further(run: Run, which: str) -> None:
    async def story(bench: Bench) -> None:
        beneath, _, vm = await with_disk_over_another(bench)
        machine = await bench.start("a", vm=vm)
        here = await machine.moving_disks(["disk0"])
        await here.outsource("disk0", bench.base)
        await bench.write(machine, "disk0", 71)
        if which == "nothing":
            await here.end()
        else:
            if which == "both":
                await machine.close()
            bench.kill(machine)
            await asyncio.sleep(0.2)
            again = bench.again() if which == "both" else bench.hypervisor
            machine = await again.start(vm, bench.place("a"), incoming=False)
            bench.started.append(machine)
        assert not list(bench.base.glob("korora-*"))
        disks = await machine.moving_disks(["disk0"])
        async with disks.written("disk0") as export:
            assert await read(export) == bytes([71]) * MIB + bytes([1]) * 2 * MIB
        await disks.end()
        assert beneath.read_bytes() == bytes([1]) * 3 * MIB

    run(story)


async def with_disk_over_another(bench: Bench) -> tuple[Path, Path, VmDefinition]:
    """What lies beneath, full of ones; the image over it; and a VM with that alone."""
    vm = with_disks(bench.base, 1)
    beneath = Path(vm.disks[0].path)
    backing = (Backing(str(beneath), "raw"),)
    disk = Disk(str(bench.base / "over.qcow2"), "qcow2", "disk0", backing)
    await bench.hypervisor.make_disk(disk, 3 * MIB)
    return beneath, Path(disk.path), replace(vm, disks=(disk,))


def test_a_disk_that_the_vm_does_not_have_is_not_moved(run: Run) -> None:
    async def story(bench: Bench) -> None:
        machine = await bench.start("a", vm=with_disks(bench.base, 1))
        with pytest.raises(RefusedError, match="no disk data") as refused:
            await machine.moving_disks(["disk0", "data"])
        assert refused.value.kind == "no-such-disk"
        assert "disk0" in refused.value.remedy

    run(story)


def test_a_vm_without_disks_has_none_at_any_moment(run: Run) -> None:
    async def story(bench: Bench) -> None:
        machine = await bench.start()
        async with machine.disks_at_one_moment(bench.base) as disks:
            assert disks == {}

    run(story)


def test_disks_are_not_read_while_the_vms_state_is_sent(run: Run) -> None:
    async def story(bench: Bench) -> None:
        async with moving(bench) as (source, _):
            with pytest.raises(RefusedError) as refused:
                async with source.disks_at_one_moment(bench.base):
                    pass
            assert refused.value.kind == "moving"

    run(story)


def test_where_a_vm_does_not_run_its_disks_are_not_read(run: Run) -> None:
    async def story(bench: Bench) -> None:
        async with moving(bench) as (source, destination):
            await moved(source, destination)
            for machine in (source, destination):
                with pytest.raises(RefusedError) as refused:
                    async with machine.disks_at_one_moment(bench.base):
                        pass
                assert refused.value.kind == "moving"
            await destination.resume()
            async with destination.disks_at_one_moment(bench.base) as disks:
                assert disks == {}

    run(story)


def test_disks_are_shown_once_at_a_time_and_no_state_is_sent_meanwhile(run: Run) -> None:
    async def story(bench: Bench) -> None:
        machine = await bench.start("a", vm=with_disks(bench.base, 1))
        async with machine.disks_at_one_moment(bench.base) as disks:
            with pytest.raises(RefusedError) as refused:
                async with machine.disks_at_one_moment(bench.base):
                    pass
            assert refused.value.kind == "disks-shown"
            with pytest.raises(RefusedError) as refused:
                await machine.send(bench.base / "stream.sock", StreamSettings())
            assert refused.value.kind == "disks-shown"
            assert await read(disks["disk0"]) == bytes([1]) * 3 * MIB
            assert await machine.run_state() is RunState.RUNNING

    run(story)


def test_a_vm_moves_after_its_disks_were_read(run: Run) -> None:
    async def story(bench: Bench) -> None:
        source = await bench.start("a", vm=with_disks(bench.base, 1))
        async with source.disks_at_one_moment(bench.base):
            pass
        destination = await bench.start("b", incoming=True, vm=source.definition)
        socket = bench.base / "stream.sock"
        await destination.listen(socket, StreamSettings())
        await source.send(socket, StreamSettings())
        await states_until(source, StreamState.PRE_SWITCHOVER)
        await moved(source, destination)
        await destination.resume()
        async with destination.disks_at_one_moment(bench.base) as disks:
            assert await read(disks["disk0"]) == bytes([1]) * 3 * MIB

    run(story)


def test_whoever_stops_reading_leaves_nothing_behind(run: Run) -> None:
    class GivenUpError(Exception):
        pass

    async def story(bench: Bench) -> None:
        machine = await bench.start("a", vm=with_disks(bench.base, 2))
        scratch = bench.base / "scratch"
        scratch.mkdir(mode=0o700)

        async def given_up(error: type[BaseException]) -> None:
            async with machine.disks_at_one_moment(scratch) as disks:
                await read(disks["disk1"])
                raise error

        for error in (GivenUpError, asyncio.CancelledError):
            with pytest.raises(error):
                await given_up(error)
            assert not list(scratch.iterdir())
            assert await machine.run_state() is RunState.RUNNING
        async with machine.disks_at_one_moment(scratch) as disks:
            assert await read(disks["disk1"]) == bytes([2]) * 3 * MIB
        assert not list(scratch.iterdir())

    run(story)


def test_a_daemon_that_ends_while_disks_are_read_leaves_a_vm_that_runs_and_can_be_read(run: Run) -> None:
    async def story(bench: Bench) -> None:
        machine = await bench.start("a", vm=with_disks(bench.base, 2))
        first, second = bench.base / "first", bench.base / "second"
        first.mkdir(mode=0o700)
        second.mkdir(mode=0o700)
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_exit(_swallow)
            await undo.enter_async_context(machine.disks_at_one_moment(first))
            await machine.close()
            found = await bench.again().attach(VM, bench.place("a"))
            assert found is not None
            bench.started.append(found)
            assert await found.run_state() is RunState.RUNNING
            async with found.disks_at_one_moment(second) as disks:
                assert await read(disks["disk1"]) == bytes([2]) * 3 * MIB
        await bench.write(found, "disk0", 9)
        assert (bench.base / "disk0.raw").read_bytes()[:MIB] == bytes([9]) * MIB

    run(story)


async def _swallow(_kind: object, error: BaseException | None, _where: object) -> bool:
    """What the daemon that ended would have said."""
    return isinstance(error, ToolError)
