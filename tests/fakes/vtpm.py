"""A vTPM agent in memory: a second implementation of `ports.vtpm`, moved by the fake hypervisor's stream.

TPM processes and what is at rest live in the `TpmWorld`, so they outlive a daemon. Blobs are sealed for real
(`protocol.vtpm_blob`), so that a wrong key, binding or blob is refused as by the real one.
Limit: no commands; what a guest would do to its TPM, a test does to `permanent` and `pcrs`.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from korora.errors import IntegrityError, RefusedError, ToolError
from korora.model.evidence import BlobDigests, PcrValues, VtpmIdentity, WipeStep
from korora.model.identity import Digest, Secret, VmName, sha256
from korora.ports.vtpm import BlobBinding, Rested
from korora.protocol.vtpm_blob import BlobType, blob_context, open_blob, seal_blob

_LENGTHS = struct.Struct(">III")


class Mode(StrEnum):
    HOME = "home"
    SENDING = "sending"
    AWAITING = "awaiting"
    ACCEPTING = "accepting"
    RETIRED = "retired"


@dataclass(eq=False, slots=True)
class TpmProcess:
    """One running vTPM, on the hypervisor's side too: `take_out` and `put_in` are what its stream does."""

    directory: Path
    mode: Mode
    permanent: bytes = b""
    pcrs: PcrValues = field(default_factory=lambda: dict.fromkeys(range(24), "00" * 32))
    reason: str = ""
    digests: dict[BlobType, Digest] = field(default_factory=dict)
    key: Secret | None = None
    context: bytes = b""
    ended: bool = False

    def take_out(self) -> bytes:
        """The three blobs. ToolError unless they may leave now."""
        if self.mode is not Mode.SENDING or self.digests or self.key is None:
            raise ToolError(f"the vTPM gives no state while {self.mode}", kind="vtpm")
        sealed = []
        for kind, state in zip(BlobType, self._states(), strict=True):
            sealed.append(seal_blob(self.key, self.context, kind, 0, state))
            self.digests[kind] = sha256(state)
        return _LENGTHS.pack(*map(len, sealed)) + b"".join(sealed)

    def put_in(self, data: bytes) -> None:
        """ToolError as the hypervisor sees it; `reason` says more."""
        if self.mode is not Mode.ACCEPTING or self.key is None:
            self.reason = self.reason or f"a blob came while {self.mode}"
            raise ToolError("the vTPM takes no state", kind="vtpm")
        try:
            opened = [
                open_blob(self.key, self.context, kind, 0, blob)
                for kind, blob in zip(BlobType, _taken_apart(data), strict=True)
            ]
        except IntegrityError as error:
            self.reason = self.reason or error.message
            raise ToolError("the vTPM takes no state", kind="vtpm") from error
        self.permanent = opened[0]
        values = opened[1].decode().split(",")
        self.pcrs = dict(enumerate(values))
        self.digests = {kind: sha256(state) for kind, state in zip(BlobType, opened, strict=True)}
        self.mode, self.key = Mode.HOME, None

    def _states(self) -> tuple[bytes, bytes, bytes]:
        return self.permanent, ",".join(self.pcrs[pcr] for pcr in range(24)).encode(), b""


def _taken_apart(data: bytes) -> list[bytes]:
    lengths = _LENGTHS.unpack_from(data)
    ends = list(itertools.accumulate(lengths, initial=_LENGTHS.size))
    return [data[start:end] for start, end in itertools.pairwise(ends)]


@dataclass(slots=True)
class TpmWorld:
    """All vTPMs of all hosts: those that run, by directory, and those at rest."""

    processes: dict[Path, TpmProcess] = field(default_factory=dict)
    at_rest: dict[Path, bytes] = field(default_factory=dict)
    serials: itertools.count[int] = field(default_factory=lambda: itertools.count(1))


class FakeVtpm:
    """A daemon's hold on one."""

    def __init__(self, process: TpmProcess) -> None:
        self._process = process

    @property
    def socket(self) -> Path:
        return self._process.directory / "vtpm.sock"

    async def identity(self) -> VtpmIdentity:
        process = self._alive()
        name = "000b" + hashlib.sha256(process.permanent).hexdigest()
        return VtpmIdentity(name, dict(process.pcrs), {"0x01c00002": "aa"}, sha256(process.permanent))

    async def endorsement_certificate(self) -> bytes | None:
        self._alive()
        return None

    async def send_under(self, key: Secret, binding: BlobBinding) -> None:
        self._install(key, binding, Mode.SENDING, {Mode.HOME, Mode.SENDING})

    async def accept_under(self, key: Secret, binding: BlobBinding) -> None:
        self._install(key, binding, Mode.ACCEPTING, {Mode.AWAITING})

    async def moved(self) -> BlobDigests:
        process = self._alive()
        if process.reason or len(process.digests) != len(BlobType):
            kind = "vtpm-blob" if process.reason else "vtpm-missing"
            raise IntegrityError(process.reason or "the vTPM's blobs are missing", kind=kind)
        return BlobDigests(**{kind.label: digest for kind, digest in process.digests.items()})

    async def stay(self) -> None:
        process = self._alive()
        if process.mode not in {Mode.HOME, Mode.SENDING}:
            raise RefusedError(f"the vTPM cannot stay while {process.mode}", kind="vtpm-order")
        process.mode, process.key, process.digests = Mode.HOME, None, {}

    async def ready(self) -> None:
        self._alive()

    async def retire(self) -> None:
        process = self._alive()
        process.mode, process.key = Mode.RETIRED, None

    def _install(self, key: Secret, binding: BlobBinding, mode: Mode, allowed: set[Mode]) -> None:
        process = self._alive()
        if process.mode not in allowed:
            raise RefusedError(f"the vTPM is {process.mode}", kind="vtpm-order")
        process.mode, process.key, process.digests, process.reason = mode, key, {}, ""
        process.context = blob_context(binding.vm, binding.session, binding.epoch)

    def _alive(self) -> TpmProcess:
        if self._process.ended:
            raise ToolError("the vTPM's processes are gone", kind="vtpm-gone")
        return self._process


class FakeVtpmAgent:
    """One host's custody, over what runs in the world."""

    def __init__(self, world: TpmWorld) -> None:
        self._world = world

    async def start(self, vm: VmName, directory: Path) -> FakeVtpm:
        self._refuse_second(vm, directory)
        state = self._world.at_rest.pop(directory, None) or b"seed %d of " % next(self._world.serials)
        return self._run(TpmProcess(directory, Mode.HOME, state + vm.encode()))

    async def start_incoming(self, vm: VmName, directory: Path) -> FakeVtpm:
        self._refuse_second(vm, directory)
        if directory in self._world.at_rest:
            raise RefusedError(f"this host already holds a vTPM of {vm}", kind="vtpm-present")
        return self._run(TpmProcess(directory, Mode.AWAITING))

    async def attach(self, vm: VmName, directory: Path) -> FakeVtpm | None:
        process = self._world.processes.get(directory)
        return FakeVtpm(process) if process is not None else None

    async def carry_out(self, vm: VmName, directory: Path, key: Secret, binding: BlobBinding) -> Rested:
        permanent = self._world.at_rest.get(directory)
        if permanent is None:
            raise RefusedError(f"the vTPM of {vm} is not whole", kind="vtpm-lost")
        process = TpmProcess(directory, Mode.HOME, permanent)
        vtpm = FakeVtpm(process)
        await vtpm.send_under(key, binding)
        return Rested(process.take_out(), await vtpm.moved(), await vtpm.identity())

    async def carry_in(
        self, vm: VmName, directory: Path, key: Secret, binding: BlobBinding, state: bytes
    ) -> Rested:
        self._refuse_second(vm, directory)
        process = TpmProcess(directory, Mode.AWAITING)
        vtpm = FakeVtpm(process)
        await vtpm.accept_under(key, binding)
        try:
            process.put_in(state)
        except ToolError:
            await vtpm.moved()
            raise
        self._world.at_rest[directory] = process.permanent
        return Rested(state, await vtpm.moved(), await vtpm.identity())

    async def stopped(self, vm: VmName, directory: Path) -> None:
        process = self._end(directory)
        if process is not None and process.mode in {Mode.HOME, Mode.SENDING}:
            self._world.at_rest[directory] = process.permanent

    async def wipe(self, vm: VmName, directory: Path) -> WipeStep:
        self._end(directory)
        erased = self._world.at_rest.pop(directory, b"")
        return WipeStep("vtpm", "forgotten", len(erased), verified=True)

    def _refuse_second(self, vm: VmName, directory: Path) -> None:
        if directory in self._world.processes:
            raise RefusedError(f"the vTPM of {vm} is in use", kind="vtpm-running")

    def _run(self, process: TpmProcess) -> FakeVtpm:
        self._world.processes[process.directory] = process
        return FakeVtpm(process)

    def _end(self, directory: Path) -> TpmProcess | None:
        process = self._world.processes.pop(directory, None)
        if process is not None:
            process.ended = True
        return process
