"""The hypervisor: starts VMs, finds them again, and moves their state through a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from korora.errors import RefusedError, ToolError
from korora.model.evidence import CleanMemoryProof, WipeStep
from korora.model.identity import VmName
from korora.model.image import NbdExport
from korora.model.vm import Disk, HypervisorFacts, RunState, VmDefinition
from korora.ports.moving_disks import MovingDisks
from korora.ports.sampling import RequestSampler


@dataclass(frozen=True, slots=True)
class Place:
    """Where one VM's files and sockets live on this host; `directory` is private to root (0700)."""

    directory: Path
    vtpm_socket: Path | None  # swtpm control channel (the interposer's listening side)

    @property
    def qmp(self) -> Path:
        return self.directory / "qmp.sock"


@dataclass(frozen=True, slots=True)
class HardwareFiles:
    """Paths that an adopted VM's hardware names: those it only reads, and those it could change."""

    read: tuple[str, ...] = ()
    written: tuple[str, ...] = ()


class StreamState(StrEnum):
    """Where the hypervisor's own migration stream is (QMP MigrationStatus, folded)."""

    NONE = "none"
    ACTIVE = "active"
    PRE_SWITCHOVER = "pre-switchover"
    DEVICE = "device"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class StreamStatus:
    state: StreamState
    transferred_bytes: int = 0
    remaining_bytes: int = 0
    total_bytes: int = 0
    round: int = 0
    dirty_rate_bytes_per_s: float = 0.0
    rate_bytes_per_s: float = 0.0
    downtime_ms: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """`channels` > 1 asks for multifd with that many data channels beside the main one."""

    downtime_limit_ms: int = 300
    max_bandwidth_bytes_per_s: int = 10**11
    channels: int = 0


class GuestMemory(Protocol):
    """The VM's RAM as a file that this host can reach. Blocking: run off the event loop."""

    def prove_clean(self) -> CleanMemoryProof:
        """Before the stream starts: nothing was ever written to it."""
        ...

    def fault_in(self) -> None:
        """Allocate it all, after the proof, so that the stream does not pay for first touches."""
        ...

    def wipe(self) -> WipeStep:
        """Overwrite with zeros, verify by reading, give the pages back. The VM must not run."""
        ...


class Machine(Protocol):
    """One live VM process. Methods raise ToolError when the process is gone or refuses."""

    @property
    def definition(self) -> VmDefinition: ...

    @property
    def pid(self) -> int: ...

    @property
    def memory(self) -> GuestMemory | None:
        """None when it cannot be reached (an adopted VM without a memory backend file)."""
        ...

    @property
    def sampler(self) -> RequestSampler | None:
        """Who can watch what its guest asks of its disks; None for an adopted VM."""
        ...

    async def run_state(self) -> RunState: ...

    async def pause(self) -> None: ...

    async def resume(self) -> None:
        """Run. On failure the VM stays paused."""
        ...

    async def power_down(self, deadline_s: float) -> None:
        """Ask the guest to shut down (ACPI), and wait until its process is gone.

        ToolError(kind="did-not-stop") when it is not by the deadline: the VM is as it was.
        """
        ...

    async def quit(self) -> None:
        """End the process now. The guest's memory is gone afterwards."""
        ...

    def disks_at_one_moment(self, scratch: Path) -> AbstractAsyncContextManager[Mapping[str, NbdExport]]:
        """Each disk, by its name, as it is now, for reading; the VM runs on, and writes on.

        `scratch`: a private folder with room for what it overwrites meanwhile; the sockets lie in it. All
        disks are of one moment, as after a power cut: no guest agent is asked. What is read after the scratch
        folder ran full is an error, never something else; the guest does not notice. ToolError: the VM is as
        it was. RefusedError: kind="moving" while its state is moved and where it does not run;
        "disks-shown" for a second one at a time, and for `send` meanwhile; "disks-hidden" for hardware that
        cannot be looked at while it runs.
        """
        ...

    async def moving_disks(self, names: Sequence[str]) -> MovingDisks:
        """These of its disks, by their names in the definition, for a move; nothing is done to them yet.

        RefusedError: kind="no-such-disk"; "disks-hidden" for hardware whose disks cannot be moved.
        """
        ...

    async def cpu_features(self) -> dict[str, bool]:
        """The expanded CPU model as the guest sees it, for comparison between hosts."""
        ...

    async def listen(self, socket: Path, settings: StreamSettings) -> None:
        """Destination: accept the stream on this unix socket."""
        ...

    async def send(self, socket: Path, settings: StreamSettings) -> None:
        """Source: start sending to this unix socket; stops before switchover and waits there."""
        ...

    async def stream_status(self) -> StreamStatus: ...

    def stream_states(self) -> AsyncIterator[StreamState]:
        """Each change of the stream's state as it happens, beginning with the present one."""
        ...

    async def allow_downtime(self, limit_ms: int) -> None:
        """Source, while it sends: pause the VM once the rest would cross within `limit_ms`."""
        ...

    async def switch_over(self) -> None:
        """Source, at PRE_SWITCHOVER: send the rest. The VM is paused."""
        ...

    async def cancel_stream(self) -> None:
        """Source, before COMPLETED: give up; the VM runs on here. Idempotent."""
        ...

    async def announce(self) -> None:
        """Tell the network where the VM's MAC addresses are now."""
        ...

    async def close(self) -> None:
        """Let go of the control connection; the VM goes on as it is."""
        ...


class Hypervisor(Protocol):
    async def facts(self) -> HypervisorFacts: ...

    async def cpu_features(self, definition: VmDefinition) -> dict[str, bool]:
        """What the definition's CPU model would expand to on this host."""
        ...

    def files(self, definition: VmDefinition) -> HardwareFiles:
        """What it would open for this VM beside disks, firmware and boot files. Looks at nothing.

        RefusedError(kind="adopted-hardware") for hardware that asks for more than hardware.
        """
        ...

    async def start(self, definition: VmDefinition, place: Place, *, incoming: bool) -> Machine:
        """Start the process. Incoming ones wait, paused, for `listen`. On failure nothing is left behind."""
        ...

    async def make_disk(self, disk: Disk, size: int) -> None:
        """A new image of so many bytes, at its path: empty, or with what lies beneath it. On failure nothing
        is left there.

        RefusedError(kind="disk-exists") when something is there; ToolError when it cannot be made.
        """
        ...

    async def disks_at_rest(self, disks: Sequence[Disk], directory: Path, *, writable: bool) -> MovingDisks:
        """Of a stopped VM. `directory`: a private folder.

        ToolError(kind="disks-in-use") when one cannot be had. That another writes to it is found out by
        `receive` at the latest.
        """
        ...

    def replacements(self, directory: Path) -> Sequence[str]:
        """Files that hold what a VM wrote while its disks were outsourced; `directory` is its own.

        ToolError(kind="outsourced-record") when nobody can say: then its disks may not be whole.
        """
        ...

    async def fold_back(self, directory: Path) -> None:
        """Bring all of that into the disks of a VM that has no process. ToolError: it is still there."""
        ...

    async def attach(self, definition: VmDefinition, place: Place) -> Machine | None:
        """Find a VM that an earlier run of this daemon started; None when its process is gone.

        What a move of its disks has left is taken out; what was outsourced is folded back.
        """
        ...

    async def adopt(self, qmp_socket: Path) -> Machine:
        """Take over supervision of a QEMU that somebody else started."""
        ...


def no_such_disk(vm: VmName, missing: Sequence[str], there: Sequence[str]) -> RefusedError:
    """What `Machine.moving_disks` raises."""
    return RefusedError(
        f"{vm} has no disk {', '.join(missing)}",
        kind="no-such-disk",
        remedy=f"its disks are: {', '.join(there) or 'none'}",
    )


def did_not_stop(vm: VmName, deadline_s: float) -> ToolError:
    """What `Machine.power_down` raises."""
    return ToolError(
        f"{vm} did not shut down within {deadline_s:g} s; it runs on",
        kind="did-not-stop",
        remedy=f"look into the guest and ask again, or end it at once: korora vm stop {vm} --force",
    )
