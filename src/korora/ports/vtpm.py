"""A VM's virtual TPM: made once, kept encrypted, read while the VM is paused, moved under a fresh key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from korora.model.evidence import BlobDigests, VtpmIdentity, WipeStep
from korora.model.identity import Secret, SessionId, VmName


@dataclass(frozen=True, slots=True)
class BlobBinding:
    """What each moving blob is authenticated with, beside its type."""

    vm: VmName
    session: SessionId
    epoch: int  # of the destination's ownership


class Vtpm(Protocol):
    """One live vTPM, behind its interposer. Methods raise ToolError when the process is gone."""

    @property
    def socket(self) -> Path:
        """The control channel to hand to the hypervisor."""
        ...

    async def ready(self) -> None:
        """Wait until it answers. ToolError(kind="vtpm-gone") when it does not start."""
        ...

    async def identity(self) -> VtpmIdentity:
        """EK name, PCRs, NV; waits for a guest command that is under way. Does not disturb the guest."""
        ...

    async def endorsement_certificate(self) -> bytes | None: ...

    async def send_under(self, key: Secret, binding: BlobBinding) -> None:
        """Source: encrypt what the hypervisor takes out from now on."""
        ...

    async def accept_under(self, key: Secret, binding: BlobBinding) -> None:
        """Destination: let in only three verified blobs, and refuse INIT until then."""
        ...

    async def accept_bare(self) -> None:
        """Destination of an adopted VM: let in unencrypted state; only the stream protects it."""
        ...

    async def moved(self) -> BlobDigests:
        """The digests of what was sent (source) or verified and loaded (destination).

        IntegrityError: `vtpm-blob` with the interposer's reason when something was refused, `vtpm-missing`
        when not all of it came.
        """
        ...

    async def stay(self) -> None:
        """Source: the move failed; forget the key and go on as before."""
        ...

    async def retire(self) -> None:
        """Shut the TPM down for good: the guest-side socket answers failure from here on."""
        ...


@dataclass(frozen=True, slots=True)
class Rested:
    """The vTPM of a stopped VM, as it leaves or arrived. Its identity is known by its permanent state."""

    state: bytes  # encrypted for one move
    blobs: BlobDigests
    identity: VtpmIdentity


class VtpmAgent(Protocol):
    """Custody of all vTPMs of one host (A1)."""

    async def start(self, vm: VmName, directory: Path) -> Vtpm:
        """Start the VM's vTPM, manufacturing it the first time.

        RefusedError(kind="stale-epoch") when this is an old copy, or the host's PCRs moved on.
        """
        ...

    async def start_incoming(self, vm: VmName, directory: Path) -> Vtpm:
        """Start an empty one that waits for its state. Its socket can be used at once, before `ready`."""
        ...

    async def attach(self, vm: VmName, directory: Path) -> Vtpm | None:
        """Find a live one after a restart of the daemon; None when it is gone."""
        ...

    async def carry_out(self, vm: VmName, directory: Path, key: Secret, binding: BlobBinding) -> Rested:
        """Source, VM stopped: its vTPM's state, encrypted. What is at rest here stays until `wipe`."""
        ...

    async def carry_in(
        self, vm: VmName, directory: Path, key: Secret, binding: BlobBinding, state: bytes
    ) -> Rested:
        """Destination: verify it and put it to rest here. IntegrityError when it is not authentic; then, or
        when the move fails later, `wipe`."""
        ...

    async def stopped(self, vm: VmName, directory: Path) -> None:
        """The VM was stopped: end the processes and bind what is at rest to its present digest."""
        ...

    async def wipe(self, vm: VmName, directory: Path) -> WipeStep:
        """End the processes, destroy state and sealed key, and move the epoch counter on."""
        ...
