"""May this VM run at that destination? Every reason against it at once, each with what mends it (S1).

Compares what the two hosts said. A finding says that the move would fail; no finding is no promise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from korora.model.facts import DestinationFacts, SourceFacts
from korora.model.plan import Finding
from korora.model.storage import DiskOrder
from korora.model.vm import Firmware, VmDefinition

NEEDED_CAPABILITIES = ("return-path", "pause-before-switchover", "events")
OVERHEAD_BYTES = 128 * 2**20  # QEMU itself, its translated code and the swtpm, beside guest RAM
_SHOWN = 12  # missing CPU features named in one message

Check = Callable[[VmDefinition, SourceFacts, DestinationFacts], Iterator[Finding]]


def precheck(definition: VmDefinition, source: SourceFacts, destination: DestinationFacts) -> list[Finding]:
    """All findings, in the order of CHECKS; none means that nothing known speaks against the move.

    `definition` is the running VM's, with machine type and accelerator pinned.
    """
    return [finding for check in CHECKS for finding in check(definition, source, destination)]


def precheck_disks(
    disks: Sequence[DiskOrder], beneath: Sequence[str], destination: DestinationFacts
) -> list[Finding]:
    """Whether the disks that come along find room: what they take now, not what they may grow to; and the
    images that are to lie `beneath` them."""
    found = [
        Finding(
            "backing",
            destination.host,
            f"{path}, over which a disk is to come, is not on {destination.host}",
            "copy it there, to the same path (what differs is found and sent), or leave --keep-backing out",
        )
        for path in beneath
        if path not in destination.disks and path not in destination.outside
    ]
    needed, there = sum(disk.used for disk in disks), destination.storage_available_bytes
    if there < needed:
        found.append(
            Finding(
                "disk-room",
                destination.host,
                f"the disks take {_mib(needed)}; {destination.host} has room for {_mib(there)}",
                f"free {_mib(needed - there)} where its `state` folder is, or choose another destination",
            )
        )
    return found


def base_model(cpu_model: str) -> str:
    """The model's name without the features added to it or taken from it."""
    return cpu_model.partition(",")[0]


def _hypervisor(vm: VmDefinition, source: SourceFacts, destination: DestinationFacts) -> Iterator[Finding]:
    here, there = source.hypervisor, destination.hypervisor
    if here.name != there.name:
        yield Finding(
            "hypervisor",
            destination.host,
            f"{vm.name} runs under {here.name}; {destination.host} has {there.name}",
            f"choose a destination that runs {here.name}",
        )
    elif _release(there.version) < _release(here.version):
        yield Finding(
            "hypervisor-version",
            destination.host,
            f"{there.name} {there.version} is older than the source's {here.version}",
            f"upgrade {there.name} on {destination.host} to {here.version} or newer",
        )


def _machine(vm: VmDefinition, _: SourceFacts, destination: DestinationFacts) -> Iterator[Finding]:
    if vm.machine not in destination.hypervisor.machines:
        yield Finding(
            "machine-type",
            destination.host,
            f"the machine type {vm.machine} is not known on {destination.host}",
            f"upgrade its {destination.hypervisor.name}, or restart the VM with an older machine type",
        )


def _accelerator(vm: VmDefinition, _: SourceFacts, destination: DestinationFacts) -> Iterator[Finding]:
    if vm.accelerator == "kvm" and destination.hypervisor.accelerator != "kvm":
        yield Finding(
            "accelerator",
            destination.host,
            f"{vm.name} runs under KVM, which does not work on {destination.host}: "
            f"{destination.hypervisor.accelerator_note}",
            f"mend KVM on {destination.host}, or restart the VM with accelerator = 'tcg'",
        )


def _cpu(vm: VmDefinition, source: SourceFacts, destination: DestinationFacts) -> Iterator[Finding]:
    model = base_model(vm.cpu_model)
    if model not in destination.hypervisor.cpu_models:
        yield Finding(
            "cpu-model",
            destination.host,
            f"the CPU model {model} is not known on {destination.host}",
            "restart the VM with a CPU model that both hosts know",
        )
    elif destination.cpu_problem:
        yield Finding(
            "cpu-model",
            destination.host,
            destination.cpu_problem,
            "restart the VM with a CPU model that both hosts can give it",
        )
    else:
        yield from _cpu_features(vm, source, destination)


def _cpu_features(vm: VmDefinition, source: SourceFacts, destination: DestinationFacts) -> Iterator[Finding]:
    """What the running guest may already rely on must be there; a stopped one has seen nothing yet."""
    used = {name for name, on in source.cpu_features.items() if on}
    missing = sorted(name for name in used if not destination.cpu_features.get(name, False))
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + (", …" if len(missing) > _SHOWN else "")
        without = ",".join([vm.cpu_model, *(f"-{name}" for name in missing[:_SHOWN])])
        yield Finding(
            "cpu-features",
            destination.host,
            f"{len(missing)} CPU features that {vm.name} sees are missing on {destination.host}: {shown}",
            f"restart the VM with cpu = '{without}', or with a model that both hosts can give it",
        )


def _memory(vm: VmDefinition, _: SourceFacts, destination: DestinationFacts) -> Iterator[Finding]:
    needed, there = vm.memory_bytes + OVERHEAD_BYTES, destination.memory_available_bytes
    if there < needed:
        yield Finding(
            "memory",
            destination.host,
            f"{vm.name} needs {_mib(needed)} with QEMU itself; {destination.host} has {_mib(there)} to give",
            f"free {_mib(needed - there)} on {destination.host}, or choose another destination",
        )


def _capabilities(vm: VmDefinition, source: SourceFacts, destination: DestinationFacts) -> Iterator[Finding]:
    for host, facts in ((source.host, source.hypervisor), (destination.host, destination.hypervisor)):
        missing = [name for name in NEEDED_CAPABILITIES if name not in facts.capabilities]
        if missing:
            yield Finding(
                "migration-capabilities",
                host,
                f"{facts.name} {facts.version} on {host} lacks {', '.join(missing)}, which {vm.name} needs",
                f"upgrade {facts.name} on {host} to 7.2 or newer",
            )


def _vtpm(vm: VmDefinition, source: SourceFacts, destination: DestinationFacts) -> Iterator[Finding]:
    here, there = source.hypervisor.swtpm_version, destination.hypervisor.swtpm_version
    if not vm.vtpm:
        return
    if not there:
        yield Finding(
            "swtpm", destination.host, f"{destination.host} has no swtpm", "install it: apt-get install swtpm"
        )
    elif _release(there) < _release(here):
        yield Finding(
            "swtpm-version",
            destination.host,
            f"swtpm {there} is older than the source's {here} and may not read the vTPM's state",
            f"upgrade swtpm on {destination.host} to {here} or newer",
        )


def _tpm(vm: VmDefinition, _: SourceFacts, destination: DestinationFacts) -> Iterator[Finding]:
    if not destination.tpm_present:
        yield Finding(
            "tpm",
            destination.host,
            f"{destination.host} has no TPM that answers, so {vm.name} cannot be bound to its state",
            "set `tpm` in its hostd.toml; `korora doctor` there says what is wrong",
        )


def _files(vm: VmDefinition, source: SourceFacts, destination: DestinationFacts) -> Iterator[Finding]:
    """Firmware, kernel and initrd: the hypervisor opens them there, and the next boot runs them.

    What the source does not have either is no file of the VM, and the destination's digest is told to nobody:
    a definition could name any file there.
    """
    for path in boot_files(vm):
        if path in destination.outside:
            continue
        here, there = source.files.get(path), destination.files.get(path)
        check = "firmware" if path == vm.firmware_code else "boot-file"
        if there is None:
            yield Finding(
                check,
                destination.host,
                f"{path} is not readable on {destination.host}",
                f"copy it there from {source.host}, to the same path",
            )
        elif here is None:
            yield Finding(
                check,
                source.host,
                f"{path} is not readable on {source.host}",
                "put it back there: it must be the same file on both hosts",
            )
        elif here != there:
            yield Finding(
                check,
                destination.host,
                f"{path} on {destination.host} is another file than on {source.host} ({here})",
                "make them the same: the VM would boot something else after the move",
            )


def _storage(vm: VmDefinition, _: SourceFacts, destination: DestinationFacts) -> Iterator[Finding]:
    """What a definition from elsewhere may not open there is not looked at either: nothing is told of it."""
    for path in destination.outside:
        yield Finding(
            "storage",
            destination.host,
            f"{vm.name} would open {path}, which {destination.host} gives to no VM from elsewhere",
            f"name its folder under `storage` in hostd.toml of {destination.host}, or move the file",
        )


def boot_files(vm: VmDefinition) -> tuple[str, ...]:
    """The files that must be equal on both hosts, by path. The variable store is brought along."""
    files = [vm.boot.kernel, vm.boot.initrd]
    if vm.firmware is Firmware.UEFI:
        files.insert(0, vm.firmware_code)
    return tuple(path for path in files if path is not None)


def _disks(vm: VmDefinition, source: SourceFacts, destination: DestinationFacts) -> Iterator[Finding]:
    for path in (path for disk in vm.disks for path in (disk.path, *disk.beneath)):
        if path in destination.outside:
            continue
        here, there = source.disks.get(path), destination.disks.get(path)
        if there is None:
            yield Finding(
                "disk",
                destination.host,
                f"the disk {path} is not visible on {destination.host}",
                "put it on storage that both hosts mount at the same path",
            )
        elif here is None:
            yield Finding(
                "disk",
                source.host,
                f"the disk {path} is not visible on {source.host}",
                "see that its storage is mounted there",
            )
        elif here != there:
            yield Finding(
                "disk",
                destination.host,
                f"{path}: {there} bytes on {destination.host}, {here} on {source.host}: not one disk",
                "mount the same shared storage at this path on both hosts",
            )


def _networks(vm: VmDefinition, _: SourceFacts, destination: DestinationFacts) -> Iterator[Finding]:
    for bridge in sorted({nic.bridge for nic in vm.nics} - set(destination.bridges)):
        yield Finding(
            "network",
            destination.host,
            f"there is no bridge {bridge} on {destination.host}",
            f"make it there: ip link add {bridge} type bridge; ip link set {bridge} up",
        )


def _name(vm: VmDefinition, _: SourceFacts, destination: DestinationFacts) -> Iterator[Finding]:
    if vm.name in destination.vms:
        yield Finding(
            "vm-name",
            destination.host,
            f"{destination.host} has a VM {vm.name} already",
            f"see `korora -H {destination.host} vm show {vm.name}`; stop it, or rename one of the two",
        )


def _incoming(vm: VmDefinition, _: SourceFacts, destination: DestinationFacts) -> Iterator[Finding]:
    if destination.incoming >= destination.incoming_limit:
        yield Finding(
            "incoming-limit",
            destination.host,
            f"{destination.incoming} VMs are arriving on {destination.host}, which takes "
            f"{destination.incoming_limit} at a time",
            f"wait for one to finish, or raise limits.incoming on {destination.host}",
        )


def _release(version: str) -> tuple[int, int]:
    """Major and minor: what may change formats. Point releases do not. Unreadable text counts as oldest."""
    parts = [int(part) for part in version.split(".")[:2] if part.isdigit()]
    return (parts[0], parts[1]) if len(parts) == 2 else (0, 0)


def _mib(size: int) -> str:
    return f"{-(-size // 2**20)} MiB"


def _adopted(vm: VmDefinition, source: SourceFacts, _: DestinationFacts) -> Iterator[Finding]:
    if vm.adopted and not vm.hardware:
        yield Finding(
            "adopted-hardware",
            source.host,
            f"{vm.name} was adopted; "
            + (vm.immovable or "some of its QEMU arguments cannot be made on another host"),
            "define the VM for Korora and start it again to move it",
        )


CHECKS: tuple[Check, ...] = (
    _adopted,
    _hypervisor,
    _machine,
    _accelerator,
    _cpu,
    _memory,
    _capabilities,
    _vtpm,
    _tpm,
    _storage,
    _files,
    _disks,
    _networks,
    _name,
    _incoming,
)
PRECHECKS = tuple(check.__name__.strip("_").replace("_", "-") for check in CHECKS)
