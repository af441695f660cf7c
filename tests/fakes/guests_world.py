"""A machine in memory: VM and vTPM processes that outlive the daemon, and can be made to die."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fakes.sampling import FakeSampler, Requests
from korora.errors import ToolError
from korora.model.evidence import BlobDigests, PcrValues, VtpmIdentity, WipeStep
from korora.model.identity import Secret, VmName
from korora.model.image import NbdExport
from korora.model.vm import Disk, HypervisorFacts, RunState, VmDefinition
from korora.ports.hypervisor import (
    GuestMemory,
    HardwareFiles,
    Place,
    StreamSettings,
    StreamState,
    StreamStatus,
    did_not_stop,
)
from korora.ports.moving_disks import MovingDisks
from korora.ports.vtpm import BlobBinding, Rested

FACTS = HypervisorFacts("qemu", "7.2.22", ("q35",), ("qemu64",), "tcg", "kvm hangs", (), "0.7.1", ())


async def until(true: Callable[[], bool]) -> None:
    for _ in range(500):
        if true():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come true")


@dataclass(slots=True, eq=False)
class Process:
    pid: int
    definition: VmDefinition
    qmp: Path
    state: RunState = RunState.RUNNING
    hung: bool = False  # it lives, and answers nobody
    deaf: bool = False  # it heeds no power button
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    requests: Requests = field(default_factory=Requests)

    def die(self) -> None:
        self.state = RunState.STOPPED
        self.ended.set()


@dataclass(slots=True)
class World:
    """What runs on the machine, whoever supervises it."""

    processes: dict[int, Process] = field(default_factory=dict)
    vtpms: dict[VmName, PcrValues] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)  # what the agents were asked, in order
    start_fails: bool = False
    aside: tuple[str, ...] = ()  # what VMs wrote elsewhere
    record_lost: bool = False  # nobody can say
    go_on: asyncio.Event | None = None  # holds a start back
    pids: itertools.count[int] = field(default_factory=lambda: itertools.count(1000))

    def spawn(self, definition: VmDefinition, qmp: Path) -> Process:
        process = Process(next(self.pids), definition, qmp)
        self.processes[process.pid] = process
        return process

    def of(self, name: str) -> Process:
        alive = [p for p in self.processes.values() if not p.ended.is_set() and p.definition.name == name]
        assert len(alive) == 1, f"{len(alive)} live processes of {name}"
        return alive[0]

    def find(self, qmp: Path) -> Process | None:
        alive = [p for p in self.processes.values() if not p.ended.is_set() and p.qmp == qmp]
        return alive[0] if alive else None

    async def wait_for_end(self, pid: int) -> None:
        await self.processes[pid].ended.wait()


class FakeMachine:
    """Implements `ports.hypervisor.Machine`, but for the migration stream."""

    def __init__(self, process: Process, definition: VmDefinition) -> None:
        self._process = process
        self._definition = definition
        self.closed = False

    @property
    def definition(self) -> VmDefinition:
        return self._definition

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def memory(self) -> GuestMemory | None:
        return None

    @property
    def sampler(self) -> FakeSampler:
        return FakeSampler(self._definition, self._process.requests, self._process.ended)

    def _alive(self) -> Process:
        if self._process.ended.is_set():
            raise ToolError("QEMU is gone", kind="qemu-gone")
        return self._process

    @asynccontextmanager
    async def disks_at_one_moment(self, scratch: Path) -> AsyncIterator[dict[str, NbdExport]]:
        self._alive()
        yield {}

    async def moving_disks(self, names: Sequence[str]) -> MovingDisks:
        raise NotImplementedError

    async def run_state(self) -> RunState:
        return self._alive().state

    async def pause(self) -> None:
        self._alive().state = RunState.PAUSED

    async def resume(self) -> None:
        self._alive().state = RunState.RUNNING

    async def power_down(self, deadline_s: float) -> None:
        process = self._alive()
        if process.deaf:
            raise did_not_stop(self._definition.name, deadline_s)
        process.die()

    async def quit(self) -> None:
        self._alive().die()

    async def cpu_features(self) -> dict[str, bool]:
        return {"sse2": True}

    async def listen(self, socket: Path, settings: StreamSettings) -> None:
        raise NotImplementedError

    async def send(self, socket: Path, settings: StreamSettings) -> None:
        raise NotImplementedError

    async def stream_status(self) -> StreamStatus:
        return StreamStatus(StreamState.NONE)

    async def stream_states(self) -> AsyncIterator[StreamState]:
        yield StreamState.NONE

    async def allow_downtime(self, limit_ms: int) -> None:
        raise NotImplementedError

    async def switch_over(self) -> None:
        raise NotImplementedError

    async def cancel_stream(self) -> None:
        return

    async def announce(self) -> None:
        return

    async def close(self) -> None:
        self.closed = True


class FakeHypervisor:
    """Implements `ports.hypervisor.Hypervisor`."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def facts(self) -> HypervisorFacts:
        return FACTS

    async def cpu_features(self, definition: VmDefinition) -> dict[str, bool]:
        return {"sse2": True}

    def files(self, definition: VmDefinition) -> HardwareFiles:
        return HardwareFiles()

    async def start(self, definition: VmDefinition, place: Place, *, incoming: bool) -> FakeMachine:
        await asyncio.sleep(0)
        self._world.told.append(f"start {definition.name}")
        if self._world.go_on is not None:
            await self._world.go_on.wait()
        if self._world.start_fails:
            raise ToolError("QEMU would not start", kind="qemu-start", remedy="look at its log")
        return FakeMachine(self._world.spawn(definition, place.qmp), definition)

    async def make_disk(self, disk: Disk, size: int) -> None:
        raise NotImplementedError

    async def disks_at_rest(self, disks: Sequence[Disk], directory: Path, *, writable: bool) -> MovingDisks:
        raise NotImplementedError

    def replacements(self, directory: Path) -> tuple[str, ...]:
        if self._world.record_lost:
            raise ToolError("the record cannot be read", kind="outsourced-record", remedy="restore it")
        return tuple(path for path in self._world.aside if directory.name in path)

    async def fold_back(self, directory: Path) -> None:
        """No VM of it moves its disks."""

    async def attach(self, definition: VmDefinition, place: Place) -> FakeMachine | None:
        process = self._world.find(place.qmp)
        if process is not None and process.hung:
            raise ToolError("no answer on the QMP socket", kind="qmp-unreachable")
        return FakeMachine(process, definition) if process else None

    async def adopt(self, qmp_socket: Path) -> FakeMachine:
        process = self._world.find(qmp_socket)
        if process is None:
            raise ToolError(f"nobody answers at {qmp_socket}", kind="qmp", remedy="is QEMU running?")
        return FakeMachine(process, process.definition)


class FakeVtpm:
    """Implements `ports.vtpm.Vtpm`, but for the move."""

    def __init__(self, world: World, vm: VmName, directory: Path) -> None:
        self._world = world
        self._vm = vm
        self._directory = directory

    @property
    def socket(self) -> Path:
        return self._directory / "vtpm.sock"

    async def identity(self) -> VtpmIdentity:
        if self._vm not in self._world.vtpms:
            raise ToolError("swtpm is gone", kind="vtpm-gone")
        return VtpmIdentity("ek", dict(self._world.vtpms[self._vm]), {})

    async def endorsement_certificate(self) -> bytes | None:
        return None

    async def send_under(self, key: Secret, binding: BlobBinding) -> None:
        raise NotImplementedError

    async def accept_under(self, key: Secret, binding: BlobBinding) -> None:
        raise NotImplementedError

    async def accept_bare(self) -> None:
        raise NotImplementedError

    async def moved(self) -> BlobDigests:
        raise NotImplementedError

    async def ready(self) -> None:
        return

    async def stay(self) -> None:
        return

    async def retire(self) -> None:
        self._world.vtpms.pop(self._vm, None)


class FakeVtpmAgent:
    """Implements `ports.vtpm.VtpmAgent`. A running vTPM is an entry in the world's `vtpms`."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def start(self, vm: VmName, directory: Path) -> FakeVtpm:
        self._world.told.append(f"vtpm {vm}")
        self._world.vtpms[vm] = dict.fromkeys(range(24), "00" * 32)
        return FakeVtpm(self._world, vm, directory)

    async def start_incoming(self, vm: VmName, directory: Path) -> FakeVtpm:
        return await self.start(vm, directory)

    async def attach(self, vm: VmName, directory: Path) -> FakeVtpm | None:
        return FakeVtpm(self._world, vm, directory) if vm in self._world.vtpms else None

    async def carry_out(self, vm: VmName, directory: Path, key: Secret, binding: BlobBinding) -> Rested:
        raise NotImplementedError

    async def carry_in(
        self, vm: VmName, directory: Path, key: Secret, binding: BlobBinding, state: bytes
    ) -> Rested:
        raise NotImplementedError

    async def stopped(self, vm: VmName, directory: Path) -> None:
        self._world.told.append(f"vtpm-stopped {vm}")
        self._world.vtpms.pop(vm, None)

    async def wipe(self, vm: VmName, directory: Path) -> WipeStep:
        self._world.told.append(f"vtpm-wiped {vm}")
        self._world.vtpms.pop(vm, None)
        return WipeStep("vtpm", "unlink", 0, verified=True)
