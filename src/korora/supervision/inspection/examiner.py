"""One look into a VM of this host: what the site's policy asks for is looked at, judged, flagged and kept.

Promise: a running VM is looked at as it was at one moment, and runs on. What was found is in its dossier, and
the report's digest in the log, before anybody is told. Nothing of an inspection that failed is kept.
Limit: it looks; it writes nothing into a disk.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from korora.errors import UsageError
from korora.model.flag import Flag, FlagKind
from korora.model.identity import HostName, VmName, sha256
from korora.model.image import Layer, NbdExport
from korora.model.inspection import (
    Check,
    Compared,
    Disposition,
    Examined,
    Found,
    Inspection,
    Verification,
)
from korora.model.inspection_policy import InspectionPolicy
from korora.model.vm import Disk, VmDefinition
from korora.policy.inspection import Judged, flagged, judged
from korora.ports.clock import Clock
from korora.ports.inspector import DiskSource, Inspector, Order, Told
from korora.ports.journal import Journal
from korora.protocol import canonical, flag
from korora.protocol.flag import FlagRecord
from korora.protocol.log import InspectionEntry
from korora.supervision.inspection import dossier
from korora.supervision.live import LiveVm

_SCRATCH: Final = "inspection-"


@dataclass(frozen=True, slots=True)
class Inspected:
    report: Inspection
    judged: Judged
    record: FlagRecord

    @property
    def open_flags(self) -> tuple[Flag, ...]:
        return tuple(one for one in self.record.flags if one.is_open)


@dataclass(frozen=True, slots=True)
class Subject:
    """The VM, whose name the caller has locked. `live` is None for one that is stopped."""

    definition: VmDefinition
    directory: Path
    live: LiveVm | None

    @property
    def name(self) -> VmName:
        return self.definition.name


class Examiner:
    """Looks into VMs for whoever holds their lock."""

    def __init__(
        self,
        host: HostName,
        journal: Journal,
        clock: Clock,
        inspector: Inspector,
        policy: Callable[[], InspectionPolicy],
    ) -> None:
        self._host = host
        self._journal = journal
        self._clock = clock
        self._inspector = inspector
        self.policy = policy

    def asked_for(self, vm: VmName) -> bool:
        """Whether the policy wants anything looked at. UsageError when the policy cannot be read."""
        return self.policy().looks(vm)

    async def inspect(self, vm: Subject, told: Told) -> Inspected:
        """UsageError(kind="no-inspection") where the policy asks for nothing; ToolError when it fails."""
        policy, begun = self.policy(), self._clock.now()
        checks = policy.checks_of(vm.name)
        if not policy.looks(vm.name):
            raise UsageError(
                f"host {self._host} looks into nothing of {vm.name}: its policy has every check off",
                kind="no-inspection",
                remedy="name an inspection.toml in hostd.toml: inspection = FILE",
            )
        async with self._looking(vm, policy) as order:
            examined = await self._inspector.inspect(order, told)
            known = dossier.read_flags(vm.directory, vm.name)
            record = flag.with_found(known, self._raised(vm.name, flagged(checks, examined)))
            verdict = judged(checks, examined, record.flags)
            report = self._report(vm, begun, examined, verdict, Path(order.output))
            await asyncio.to_thread(dossier.keep, vm.directory, Path(order.output), report, record)
        self._log("inspection", vm.name, canonical.encoded(report))
        return Inspected(report, verdict, record)

    async def verify(self, vm: Subject, told: Told) -> Verification:
        """UsageError(kind="no-baseline") for a VM without a report. Only what no run of the VM explains is
        flagged: a chunk that is another though nothing ran."""
        of = dossier.read_report(vm.directory)
        if of is None:
            raise UsageError(
                f"{vm.name} was never inspected, so there is nothing to hold it against",
                kind="no-baseline",
                remedy=f"korora vm inspect {vm.name}",
            )
        ran, policy = dossier.has_run(vm.directory) or vm.live is not None, self.policy()
        async with self._looking(vm, policy, of) as order:
            compared = await self._inspector.compare(order, told)
        raised = self._raised(vm.name, () if ran else _differing(compared))
        if raised:
            record = flag.with_found(dossier.read_flags(vm.directory, vm.name), raised)
            dossier.write_flags(vm.directory, record)
        verification = Verification(
            vm=vm.name,
            host=self._host,
            at=int(self._clock.now()),
            of=of,
            running=vm.live is not None,
            ran=ran,
            proved=self._is_intact(vm, of),
            compared=_with_roots(compared, of),
        )
        dossier.write_verification(vm.directory, verification)
        self._log("verification", vm.name, canonical.encoded(verification))
        return verification

    def flag(self, vm: VmName, directory: Path, found: Iterable[Found]) -> tuple[str, ...]:
        """What somebody else found goes into the VM's record; the names of the flags."""
        raised = self._raised(vm, found)
        dossier.write_flags(directory, flag.with_found(dossier.read_flags(directory, vm), raised))
        return tuple(one.id for one in raised)

    # -- inside -----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _looking(
        self, vm: Subject, policy: InspectionPolicy, of: Inspection | None = None
    ) -> AsyncIterator[Order]:
        """An order over the VM's disks as they are now; whatever was made for it is gone afterwards."""
        async with AsyncExitStack() as undo:
            for left in vm.directory.glob(f"{_SCRATCH}*"):  # by a daemon that ended meanwhile
                await asyncio.to_thread(shutil.rmtree, left, ignore_errors=True)
            scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=vm.directory))
            undo.callback(shutil.rmtree, scratch, ignore_errors=True)
            output = scratch / "output"
            output.mkdir(mode=0o700)
            checks = dict(policy.checks_of(vm.name))
            if of is not None:  # what was looked at then is looked at again
                checks = dict.fromkeys(Check, Disposition.OFF) | {
                    one.check: one.disposition for one in of.checks
                }
            disks = await self._disks(vm, scratch, undo)
            yield Order(
                vm=vm.name,
                checks=checks,
                disks=disks,
                configuration=tuple(one.replace("{vm}", vm.name) for one in policy.configuration),
                allow=policy.allow,
                output=str(output),
                baseline=str(dossier.folder(vm.directory)) if of is not None else "",
                engines=policy.engines or "",
                indicators=policy.indicators or "",
                original_bytes=policy.original_bytes,
                within_s=policy.within_s,
            )

    async def _disks(self, vm: Subject, scratch: Path, undo: AsyncExitStack) -> tuple[DiskSource, ...]:
        defined = {disk.name: _as_defined(disk) for disk in vm.definition.disks}
        if vm.live is None:
            return tuple(defined.values())
        exports = await undo.enter_async_context(vm.live.machine.disks_at_one_moment(scratch))
        missing: list[DiskSource] = []
        if not vm.definition.adopted:  # whose definition has the removable media too, which are no disks
            missing = [replace(one, running=True) for name, one in defined.items() if name not in exports]
        return (*(_shown(name, one, defined.get(name)) for name, one in exports.items()), *missing)

    def _raised(self, vm: VmName, found: Iterable[Found]) -> list[Flag]:
        now = int(self._clock.now())
        return [flag.raised(vm, one, self._host, now) for one in found]

    def _report(
        self, vm: Subject, begun: float, examined: Examined, verdict: Judged, output: Path
    ) -> Inspection:
        return Inspection(
            vm=vm.name,
            host=self._host,
            at=int(begun),
            took_s=round(self._clock.now() - begun),
            running=vm.live is not None,
            checks=verdict.results,
            disks=examined.disks,
            configuration=examined.configuration,
            baseline=dossier.baseline_digest(output),
        )

    def _is_intact(self, vm: Subject, of: Inspection) -> bool:
        return dossier.baseline_digest(dossier.folder(vm.directory)) == of.baseline

    def _log(self, kind: Literal["inspection", "verification"], vm: VmName, told: bytes) -> None:
        at = int(self._clock.now())
        self._journal.append_log(InspectionEntry(kind=kind, vm=vm, digest=sha256(told), at=at).leaf())


def _as_defined(disk: Disk) -> DiskSource:
    backing = tuple(Layer(one.path, one.format) for one in disk.backing)
    return DiskSource(name=disk.name, format=disk.format, path=disk.path, backing=backing)


def _shown(name: str, export: NbdExport, defined: DiskSource | None) -> DiskSource:
    return replace(
        defined or DiskSource(name=name, format="raw"),
        running=True,
        socket=str(export.socket),
        export=export.name,
        opened=export.layers,
    )


def _with_roots(compared: Compared, of: Inspection) -> Compared:
    """Each disk with the root that it had then."""
    then = {disk.name: disk.root for disk in of.disks}
    disks = (msgspec.structs.replace(one, before=then.get(one.name)) for one in compared.disks)
    return msgspec.structs.replace(compared, disks=tuple(disks))


def _differing(compared: Compared) -> list[Found]:
    return [one for one in compared.examined.found if one.kind is FlagKind.DIFFERS]
