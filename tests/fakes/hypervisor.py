"""A hypervisor in memory that moves real bytes through real sockets, and fails wherever a test wants it to.

VMs live in the `World`, not in the hypervisor: they outlive it as QEMU outlives the daemon. The world also
watches: a VM that runs at two places, or an old copy that runs again after a newer one has, is a `violation`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from fakes.hypervisor_stream import GarbledError, receive_guest, send_guest
from fakes.moving_disks import FakeMovingDisks, fold_back, overlays
from fakes.sampling import FakeSampler, Requests
from korora.adapters.image.qemu_nbd import served
from korora.errors import RefusedError, ToolError
from korora.model.evidence import CleanMemoryProof, WipeStep
from korora.model.identity import VmName
from korora.model.image import Format, ImageFiles, Layer, NbdExport
from korora.model.vm import Disk, HypervisorFacts, RunState, VmDefinition
from korora.ports.hypervisor import (
    HardwareFiles,
    Place,
    StreamSettings,
    StreamState,
    StreamStatus,
    did_not_stop,
    no_such_disk,
)

FACTS = HypervisorFacts(
    name="qemu",
    version="7.2.22",
    machines=("pc-q35-7.2", "q35"),
    cpu_models=("qemu64",),
    accelerator="tcg",
    accelerator_note="there is no /dev/kvm here",
    capabilities=("events", "multifd", "pause-before-switchover", "return-path"),
    swtpm_version="0.7.1",
    firmware=(),
)
FINAL = frozenset({StreamState.COMPLETED, StreamState.FAILED, StreamState.CANCELLED})
CHUNK_BYTES = 64 * 2**10


class Device(Protocol):
    """Something that the VM's stream carries too, such as its vTPM. Both may raise ToolError."""

    def take_out(self) -> bytes: ...

    def put_in(self, data: bytes) -> None: ...


class Trouble(StrEnum):
    FAIL = "fail"  # the step does nothing and raises ToolError
    FAIL_AFTER = "fail-after"  # the step is done, but its answer is lost: ToolError
    DIE = "die"  # the VM's process ends instead
    DIE_AFTER = "die-after"  # the step is done, then the process ends
    STALL = "stall"  # nothing comes back until World.go_on is set


@dataclass(eq=False, slots=True)
class Guest:
    """One VM process on one host. `runs` is its lineage: one mark for each time it began to run, anywhere."""

    pid: int
    host: str
    definition: VmDefinition
    directory: Path
    state: RunState
    memory: bytearray
    runs: tuple[int, ...] = ()
    stream: StreamState = StreamState.NONE
    reason: str = ""
    sent_bytes: int = 0
    paused_by_stream: bool = False
    adopted: bool = False
    downtime_limit_ms: int = 0
    requests: Requests = field(default_factory=Requests)
    dead: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    go: asyncio.Event = field(default_factory=asyncio.Event)  # switch_over was called
    work: asyncio.Task[None] | None = None
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)  # that end with it

    async def become(self, state: StreamState, reason: str = "") -> None:
        async with self.changed:
            self.stream, self.reason = state, reason or self.reason
            self.changed.notify_all()

    def die(self) -> None:
        """As SIGKILL does. Also for tests, at any moment."""
        self.dead.set()
        self.state = RunState.STOPPED
        self.memory = bytearray()
        for process in self.processes:
            process.kill()
            process.wait()
        if self.work is not None and self.work is not _current_task():
            self.work.cancel()


@dataclass(slots=True)
class World:
    """All hosts' VMs, the troubles to come, and what went wrong that never may."""

    guests: list[Guest] = field(default_factory=list)
    troubles: list[tuple[str, str | None, Trouble]] = field(default_factory=list)
    steps: list[tuple[str, str]] = field(default_factory=list)  # (host, step), in order
    before: Callable[[str, str], Awaitable[None]] | None = None  # (host, step): may raise, wait, or kill
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    violations: list[str] = field(default_factory=list)
    deaf: bool = False  # guests that heed no power button
    latest: dict[VmName, tuple[int, ...]] = field(default_factory=dict)
    pids: itertools.count[int] = field(default_factory=lambda: itertools.count(4_000_000))
    device_of: Callable[[Path], Device | None] = lambda _directory: None

    def trouble(self, step: str, what: Trouble, host: str | None = None) -> None:
        """The next time `step` comes (on `host`), this happens instead, once.

        Steps: the names of Hypervisor's and Machine's methods, and for the stream's own progress
        `stream-active`, `stream-device` (source) and `stream-load` (destination).
        """
        self.troubles.append((step, host, what))

    def living(self, name: str) -> list[Guest]:
        return [guest for guest in self.guests if guest.definition.name == name and not guest.dead.is_set()]

    def running(self, name: str) -> list[str]:
        """The hosts on which it runs now."""
        return [guest.host for guest in self.living(name) if guest.state is RunState.RUNNING]

    def run(self, guest: Guest) -> None:
        """It begins to run. Two at once, or a copy that is not the newest, are violations."""
        name = guest.definition.name
        for other in self.living(name):
            if other is not guest and other.state is RunState.RUNNING:
                self.violations.append(f"{name} runs on {other.host} and {guest.host}")
        newest = self.latest.get(name, ())
        if guest.runs[: len(newest)] != newest:
            self.violations.append(f"an old copy of {name} runs again on {guest.host}")
        if guest.state is not RunState.RUNNING:
            guest.runs = (*guest.runs, len(newest) + 1_000 * guest.pid)
        self.latest[name] = guest.runs
        guest.state = RunState.RUNNING

    async def meet(self, host: str, step: str, guest: Guest | None = None) -> Trouble | None:
        """What stands before a step. Returns the trouble that must come after it."""
        self.steps.append((host, step))
        if self.before is not None:
            await self.before(host, step)
        found = next((t for t in self.troubles if t[0] == step and t[1] in {None, host}), None)
        if found is None:
            return None
        self.troubles.remove(found)
        match found[2]:
            case Trouble.FAIL:
                raise ToolError(f"{step} fails on {host}", kind="fake")
            case Trouble.DIE if guest is not None:
                guest.die()
                raise _gone(guest)
            case Trouble.STALL:
                await self.go_on.wait()
            case _:
                pass
        return found[2]

    def after(self, host: str, step: str, trouble: Trouble | None, guest: Guest) -> None:
        if trouble is Trouble.DIE_AFTER:
            guest.die()
            raise _gone(guest)
        if trouble is Trouble.FAIL_AFTER:
            raise ToolError(f"the answer to {step} was lost on {host}", kind="qmp-silent")


@dataclass(slots=True)
class FakeMemory:
    guest: Guest
    world: World
    clean: bool = True  # False: as if something had been left in it

    def prove_clean(self) -> CleanMemoryProof:
        self._alive()
        used = 0 if self.clean and not any(self.guest.memory) else len(self.guest.memory)
        return CleanMemoryProof("looked at every byte", len(self.guest.memory), used, clean=used == 0)

    def fault_in(self) -> None:
        self._alive()
        self.world.steps.append((self.guest.host, "fault_in"))

    def _alive(self) -> None:
        if self.guest.dead.is_set():
            raise _gone(self.guest)

    def wipe(self) -> WipeStep:
        self._alive()
        if self.guest.state is RunState.RUNNING:
            self.world.violations.append(f"the memory of {self.guest.definition.name} was wiped while it ran")
        self.world.steps.append((self.guest.host, "wipe"))
        size = len(self.guest.memory)
        self.guest.memory[:] = bytes(size)
        return WipeStep("guest memory", "zeros in a bytearray", size, verified=not any(self.guest.memory))


class FakeMachine:
    """A daemon's hold on a guest. After `close` it holds no more."""

    def __init__(self, guest: Guest, world: World) -> None:
        self.guest = guest
        self._world = world
        self._memory = FakeMemory(guest, world)
        self._sampler = FakeSampler(guest.definition, guest.requests, guest.dead)
        self._held = True
        self._shown = False

    @property
    def definition(self) -> VmDefinition:
        return self.guest.definition

    @property
    def pid(self) -> int:
        return self.guest.pid

    @property
    def memory(self) -> FakeMemory | None:
        return None if self.guest.adopted else self._memory

    @property
    def sampler(self) -> FakeSampler | None:
        return None if self.guest.adopted else self._sampler

    async def run_state(self) -> RunState:
        if self.guest.dead.is_set():
            return RunState.STOPPED
        async with self._step("run_state"):
            return self.guest.state

    async def pause(self) -> None:
        async with self._step("pause"):
            if self.guest.state is RunState.RUNNING:
                self.guest.state = RunState.PAUSED

    async def resume(self) -> None:
        async with self._step("resume"):
            if self.guest.stream in {StreamState.ACTIVE, StreamState.DEVICE} and not self.guest.sent_bytes:
                raise ToolError("the guest has not arrived", kind="qmp-refused")
            self._world.run(self.guest)

    async def power_down(self, deadline_s: float) -> None:
        async with self._step("power_down"):
            if self._world.deaf:
                raise did_not_stop(self.guest.definition.name, deadline_s)
            self.guest.die()

    async def quit(self) -> None:
        if not self.guest.dead.is_set():
            async with self._step("quit"):
                self.guest.die()
        self._held = False

    @asynccontextmanager
    async def disks_at_one_moment(self, scratch: Path) -> AsyncIterator[dict[str, NbdExport]]:
        """Copies, which another program serves."""
        self._refuse_shown()
        moving = self.guest.stream in {StreamState.ACTIVE, StreamState.PRE_SWITCHOVER, StreamState.DEVICE}
        if moving or self.guest.state in {RunState.INCOMING, RunState.MIGRATED}:
            raise RefusedError("its state is just being moved", kind="moving")
        async with self._step("disks_at_one_moment"):
            copies = {disk.name: Path(disk.path).read_bytes() for disk in self.definition.disks}
        layers = {disk.name: (Layer(disk.path, disk.format),) for disk in self.definition.disks}
        with ExitStack() as undo:
            self._shown = True
            undo.callback(setattr, self, "_shown", False)
            exports = {}
            for name, content in copies.items():
                folder = scratch / name
                folder.mkdir(mode=0o700)
                undo.callback(shutil.rmtree, folder, ignore_errors=True)
                copy = folder / "copy.raw"
                copy.write_bytes(content)
                undo.enter_context(served(ImageFiles(copy, Format.RAW), folder, 5))
                exports[name] = NbdExport(folder / "nbd", layers=layers[name])
            yield exports

    async def moving_disks(self, names: Sequence[str]) -> FakeMovingDisks:
        async with self._step("moving_disks"):
            there = {disk.name: disk for disk in self.definition.disks}
            missing = [name for name in names if name not in there]
            if missing:
                raise no_such_disk(self.definition.name, missing, list(there))
            return FakeMovingDisks(
                [there[name] for name in names], self.guest.directory, self.guest.processes
            )

    async def cpu_features(self) -> dict[str, bool]:
        async with self._step("cpu_features"):
            return {"sse2": True, "avx": False}

    async def listen(self, socket: Path, settings: StreamSettings) -> None:
        async with self._step("listen"):
            arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.guest.work = asyncio.create_task(_load(self.guest, self._world, socket, settings, arrived))
            await arrived

    async def send(self, socket: Path, settings: StreamSettings) -> None:
        self._refuse_shown()
        async with self._step("send"):
            self.guest.go.clear()
            self.guest.sent_bytes = 0
            self.guest.downtime_limit_ms = settings.downtime_limit_ms
            await self.guest.become(StreamState.ACTIVE)
            self.guest.work = asyncio.create_task(_save(self.guest, self._world, socket, settings))

    async def stream_status(self) -> StreamStatus:
        async with self._step("stream_status"):
            total = len(self.guest.memory)
            return StreamStatus(
                state=self.guest.stream,
                transferred_bytes=self.guest.sent_bytes,
                remaining_bytes=max(0, total - self.guest.sent_bytes),
                total_bytes=total,
                round=1 if self.guest.sent_bytes else 0,
                downtime_ms=7 if self.guest.stream is StreamState.COMPLETED else None,
                reason=self.guest.reason,
            )

    async def stream_states(self) -> AsyncIterator[StreamState]:
        seen: StreamState | None = None
        while seen not in FINAL:
            self._alive()
            if self.guest.stream is not seen:
                seen = self.guest.stream
                yield seen
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05), self.guest.changed:
                    await self.guest.changed.wait()

    async def allow_downtime(self, limit_ms: int) -> None:
        async with self._step("allow_downtime"):
            self.guest.downtime_limit_ms = limit_ms

    async def switch_over(self) -> None:
        async with self._step("switch_over"):
            if self.guest.stream is not StreamState.PRE_SWITCHOVER:
                raise ToolError("not at pre-switchover", kind="qmp-refused")
            self.guest.go.set()

    async def cancel_stream(self) -> None:
        async with self._step("cancel_stream"):
            if self.guest.stream is StreamState.COMPLETED:
                raise ToolError("the stream had completed already", kind="stream-completed")
            if self.guest.stream in FINAL or self.guest.stream is StreamState.NONE:
                return
            if self.guest.work is not None:
                self.guest.work.cancel()
                await asyncio.wait([self.guest.work])
            _back_as_it_was(self.guest, self._world)
            await self.guest.become(StreamState.CANCELLED)

    async def announce(self) -> None:
        async with self._step("announce"):
            pass

    async def close(self) -> None:
        self._held = False

    def _refuse_shown(self) -> None:
        if self._shown:
            raise RefusedError("its disks are shown", kind="disks-shown")

    def _alive(self) -> None:
        if self.guest.dead.is_set():
            raise _gone(self.guest)
        if not self._held:
            raise ToolError("this hold on the VM was let go", kind="qmp-gone")

    @contextlib.asynccontextmanager
    async def _step(self, step: str) -> AsyncIterator[None]:
        self._alive()
        trouble = await self._world.meet(self.guest.host, step, self.guest)
        self._alive()
        yield
        self._world.after(self.guest.host, step, trouble, self.guest)


class FakeHypervisor:
    """One host's. Make another one over the same World and host for a daemon that was started again."""

    def __init__(self, host: str = "a", world: World | None = None, facts: HypervisorFacts = FACTS) -> None:
        self.host = host
        self.world = world or World()
        self.fixed_facts = facts
        self.expanded_cpu = {"sse2": True, "avx": False}
        self.guest_bytes = 2**20  # of memory, whatever the definition says
        self.clean = True

    async def facts(self) -> HypervisorFacts:
        await self.world.meet(self.host, "facts")
        return self.fixed_facts

    async def cpu_features(self, definition: VmDefinition) -> dict[str, bool]:
        await self.world.meet(self.host, "expand_cpu")
        return dict(self.expanded_cpu)

    def files(self, definition: VmDefinition) -> HardwareFiles:
        return HardwareFiles()

    async def start(self, definition: VmDefinition, place: Place, *, incoming: bool) -> FakeMachine:
        step = "start_incoming" if incoming else "start"
        trouble = await self.world.meet(self.host, step)
        if self._at(place.directory) is not None:
            raise ToolError(f"{definition.name} is running already", kind="already-running")
        place.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not incoming:
            fold_back(place.directory)
        guest = self._made(definition, place.directory, incoming=incoming)
        machine = FakeMachine(guest, self.world)
        if not incoming:
            self.world.latest.pop(definition.name, None)  # a boot: nothing older can be revived by it
            self.world.run(guest)
        self.world.after(self.host, step, trouble, guest)
        return self._with_memory(machine)

    async def make_disk(self, disk: Disk, size: int) -> None:
        trouble = await self.world.meet(self.host, "make_disk")
        path = Path(disk.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("xb") as file:
                if disk.backing:  # a fake image is its content
                    file.write(Path(disk.backing[0].path).read_bytes())
                file.truncate(size)
        except FileExistsError as error:
            raise RefusedError(f"{path} is there already", kind="disk-exists") from error
        if trouble is not None:
            raise ToolError(f"the answer to make_disk was lost on {self.host}", kind="qmp-silent")

    def replacements(self, directory: Path) -> tuple[str, ...]:
        return overlays(directory)

    async def fold_back(self, directory: Path) -> None:
        await self.world.meet(self.host, "fold_back")
        fold_back(directory)

    async def disks_at_rest(
        self, disks: Sequence[Disk], directory: Path, *, writable: bool
    ) -> FakeMovingDisks:
        trouble = await self.world.meet(self.host, "disks_at_rest")
        held = {
            disk.path
            for guest in self.world.guests
            for disk in guest.definition.disks
            if not guest.dead.is_set()
        }
        if trouble is not None or any(disk.path in held for disk in disks):
            raise ToolError("the disks of the stopped VM cannot be had", kind="disks-in-use")
        return FakeMovingDisks(disks, directory, [])

    async def attach(self, definition: VmDefinition, place: Place) -> FakeMachine | None:
        trouble = await self.world.meet(self.host, "attach")
        fold_back(place.directory)
        guest = self._at(place.directory)
        if guest is None:
            return None
        self.world.after(self.host, "attach", trouble, guest)
        return self._with_memory(FakeMachine(guest, self.world))

    async def adopt(self, qmp_socket: Path) -> FakeMachine:
        await self.world.meet(self.host, "adopt")
        guest = self._at(qmp_socket.parent)
        if guest is None:
            raise ToolError(f"no answer on the QMP socket {qmp_socket}", kind="qmp-unreachable")
        guest.adopted = True
        return FakeMachine(guest, self.world)

    def _with_memory(self, machine: FakeMachine) -> FakeMachine:
        if machine.memory is not None:
            machine.memory.clean = self.clean
        return machine

    def _made(self, definition: VmDefinition, directory: Path, *, incoming: bool) -> Guest:
        guest = Guest(
            pid=next(self.world.pids),
            host=self.host,
            definition=definition,
            directory=directory,
            state=RunState.INCOMING if incoming else RunState.PAUSED,
            memory=bytearray(self.guest_bytes),
        )
        if not incoming:
            guest.memory[:] = (definition.name.encode() * self.guest_bytes)[: self.guest_bytes]
        self.world.guests.append(guest)
        return guest

    def _at(self, directory: Path) -> Guest | None:
        alive = [g for g in self.world.guests if g.directory == directory and not g.dead.is_set()]
        return alive[0] if alive else None


async def _save(guest: Guest, world: World, socket: Path, settings: StreamSettings) -> None:
    """The source's migration thread: memory, a stop before switchover, the rest, the destination's word."""
    was_running = guest.state is RunState.RUNNING

    async def halfway() -> None:
        await world.meet(guest.host, "stream-active", guest)

    async def before_the_rest() -> bytes:
        guest.paused_by_stream = was_running
        guest.state = RunState.PAUSED
        await guest.become(StreamState.PRE_SWITCHOVER)
        await guest.go.wait()
        await guest.become(StreamState.DEVICE)
        await world.meet(guest.host, "stream-device", guest)
        device = world.device_of(guest.directory)
        state = device.take_out() if device is not None else b""
        return ",".join(map(str, guest.runs)).encode() + b"|" + state

    def count(sent: int) -> None:
        guest.sent_bytes += sent

    try:
        await send_guest(socket, settings.channels, bytes(guest.memory), halfway, before_the_rest, count)
    except (OSError, EOFError, GarbledError, ToolError) as error:
        if not guest.dead.is_set():
            _back_as_it_was(guest, world)
            await guest.become(StreamState.FAILED, str(error) or type(error).__name__)
        return
    guest.state = RunState.MIGRATED
    await guest.become(StreamState.COMPLETED)


async def _load(
    guest: Guest, world: World, socket: Path, settings: StreamSettings, ready: asyncio.Future[None]
) -> None:
    """The destination's loading; like QEMU's, its process ends on a stream that it cannot read."""

    def began() -> None:
        guest.stream = StreamState.ACTIVE

    async def loaded(memory: bytes, rest: bytes) -> None:
        await world.meet(guest.host, "stream-load", guest)
        runs, _, state = rest.partition(b"|")
        device = world.device_of(guest.directory)
        if device is not None:
            device.put_in(state)
        guest.memory[:] = memory
        guest.sent_bytes = len(memory)
        guest.runs = tuple(int(mark) for mark in runs.decode().split(",") if mark)

    try:
        await receive_guest(socket, settings.channels, ready, began, loaded)
    except (OSError, EOFError, GarbledError, ToolError, ValueError) as error:
        if not ready.done():
            ready.set_exception(ToolError(f"cannot listen on {socket}: {error}", kind="qmp-refused"))
            return
        guest.reason = str(error)
        guest.die()
        return
    await guest.become(StreamState.COMPLETED)


def _back_as_it_was(guest: Guest, world: World) -> None:
    if guest.paused_by_stream:
        guest.paused_by_stream = False
        world.run(guest)


def _gone(guest: Guest) -> ToolError:
    why = f": {guest.reason}" if guest.reason else ""
    return ToolError(f"the QEMU of {guest.definition.name} has ended{why}", kind="vm-process-gone")


def _current_task() -> asyncio.Task[None] | None:
    with contextlib.suppress(RuntimeError):
        return asyncio.current_task()
    return None
