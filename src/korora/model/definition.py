"""A VM's definition as TOML text: parsed strictly, written back in one canonical form, and digested.

Whatever is not in the table below is refused, by the key's full name: a definition also arrives from another
host, and ends up on QEMU's command line. Does no I/O: whether a file exists is for the prechecks to say.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator

from korora.model.identity import Digest, VmName, checked_name, sha256
from korora.model.strict_toml import StrictTable, read_toml, wrong
from korora.model.vm import Backing, Boot, Disk, Firmware, Nic, VmDefinition

MEMORY_MIN_BYTES = 16 * 2**20
MEMORY_MAX_BYTES = 16 * 2**40
MEMORY_STEP_BYTES = 8192  # QEMU's own step; an adopted guest's RAM need not be whole MiB
CPUS_MAX = 255
IMMOVABLE_MAX_CHARS = 1024
COMMAND_LINE_MAX_CHARS = 2047  # the x86 Linux boot protocol's limit

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_MEMORY = re.compile(r"([0-9]{1,15})\s?([KMGT]?)(?:i?B)?")
_CPU = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}(,[+-]?[a-z0-9][a-z0-9._-]{0,63}(=(on|off))?){0,64}")
_MACHINE = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
_ONE_INITRD = re.compile("[^, ]+")  # with a multiboot kernel QEMU takes it for a list of files
_DISK_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
_BRIDGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")  # IFNAMSIZ less one
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_FORMATS = ("raw", "qcow2")
_ACCELERATORS = ("auto", "kvm", "tcg")
_UUID_SPACE = uuid.UUID("6ad1b9d8-5c0e-5d0f-8f8e-6b6f726f7261")


def parse_definition(text: str, origin: str = "VM definition") -> VmDefinition:
    """The VM that `text` describes. UsageError(kind="bad-definition") names `origin` and the line or key."""
    root = StrictTable(read_toml(text, origin), "", origin)
    name = VmName(checked_name(root.text("name"), f"{origin}: the VM name"))
    firmware = root.table("firmware")
    boot = root.table("boot")
    vtpm = root.table("vtpm")
    kind = Firmware(firmware.one_of("kind", tuple(Firmware), Firmware.BIOS.value))
    definition = VmDefinition(
        name=name,
        uuid=_uuid(root, name),
        memory_bytes=_memory(root),
        cpus=root.number("cpus", 1, CPUS_MAX, 1),
        cpu_model=root.matching("cpu", _CPU, '"qemu64" or "Skylake-Server,-hle"', "qemu64"),
        machine=root.matching("machine", _MACHINE, '"q35" or "pc-q35-7.2"', "q35"),
        accelerator=root.one_of("accelerator", _ACCELERATORS, "auto"),
        firmware=kind,
        secure_boot=firmware.flag("secure_boot", default=False),
        firmware_code=firmware.optional_path("code"),
        firmware_variables=firmware.optional_path("variables"),
        boot=_boot(boot),
        vtpm=vtpm.flag("enabled", default=True),
        disks=_disks(root),
        nics=_nics(root),
        adopted=root.flag("adopted", default=False),
        hardware=root.texts("hardware"),
        immovable=root.text("immovable", "", limit=IMMOVABLE_MAX_CHARS),
    )
    for table in (firmware, boot, vtpm, root):
        table.end()
    _check_together(definition, origin)
    return definition


def definition_text(definition: VmDefinition) -> str:
    """The canonical TOML: one order of keys, every default written out. `parse_definition` gives it back."""
    return "\n".join(_lines(definition)) + "\n"


def definition_digest(definition: VmDefinition) -> Digest:
    """SHA-256 of the canonical text: equal for equal definitions, however they were written."""
    return sha256(definition_text(definition).encode())


def _uuid(root: StrictTable, name: VmName) -> str:
    """The UUID as written, else one that follows from the name: parsing must not draw randomness."""
    if not root.has("uuid"):
        return str(uuid.uuid5(_UUID_SPACE, name))
    written = root.text("uuid")
    try:
        return str(uuid.UUID(written))
    except ValueError as error:
        raise root.refuse("uuid", f"is {written[:80]!r}", "write it as `uuidgen` prints it") from error


def _memory(root: StrictTable) -> int:
    written = root.take("memory")
    size = _bytes_of(written)
    if size is None:
        raise root.refuse("memory", f"is {str(written)[:40]!r}", 'write it like "512M" or "2G"')
    if not MEMORY_MIN_BYTES <= size <= MEMORY_MAX_BYTES or size % MEMORY_STEP_BYTES:
        raise root.refuse("memory", f"is {size} bytes", 'use whole 8 KiB, from "16M" to "16T"')
    return size


def _bytes_of(written: object) -> int | None:
    if isinstance(written, bool):
        return None
    if isinstance(written, int):
        return written
    match = _MEMORY.fullmatch(written) if isinstance(written, str) else None
    return int(match[1]) * _UNITS[match[2]] if match else None


def _boot(table: StrictTable) -> Boot:
    initrd = table.optional_path("initrd")
    if initrd is not None and not _ONE_INITRD.fullmatch(initrd):
        raise table.refuse("initrd", f"is {initrd[:80]!r}", "use a path without commas and spaces")
    return Boot(
        kernel=table.optional_path("kernel"),
        initrd=initrd,
        command_line=table.text("command_line", "", limit=COMMAND_LINE_MAX_CHARS),
    )


def _disks(root: StrictTable) -> tuple[Disk, ...]:
    disks = []
    for index, table in enumerate(root.tables("disks")):
        form = table.one_of("format", _FORMATS, "raw")
        disks.append(
            Disk(
                path=table.path("path"),
                format=form,
                name=table.matching("name", _DISK_NAME, '"disk0"', f"disk{index}"),
                backing=_backing(table, form),
            )
        )
        table.end()
    _refuse_twins(root, "disks", "name", [disk.name for disk in disks])
    _refuse_twins(root, "disks", "path", [disk.path for disk in disks])
    written = {disk.path for disk in disks}
    if any(path in written for disk in disks for path in disk.beneath):
        raise root.refuse("disks", "write to an image that lies beneath one of them", "give each its own")
    return tuple(disks)


def _backing(disk: StrictTable, form: str) -> tuple[Backing, ...]:
    found: list[Backing] = []
    for table in disk.tables("backing"):
        if not table.has("format"):  # what a guest once wrote must not decide it
            raise table.refuse("format", "is missing", "say whether it is raw or qcow2")
        found.append(Backing(path=table.path("path"), format=table.one_of("format", _FORMATS, "raw")))
        table.end()
    if found and "raw" in {form, *(one.format for one in found[:-1])}:
        raise disk.refuse("backing", "lies beneath a raw image", "only qcow2 images have others beneath them")
    _refuse_twins(disk, "backing", "path", [one.path for one in found])
    return tuple(found)


def _nics(root: StrictTable) -> tuple[Nic, ...]:
    nics = []
    for table in root.tables("networks"):
        mac = table.text("mac").lower()
        if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1:
            raise table.refuse("mac", f"is {mac[:80]!r}", 'write a unicast address like "52:54:00:12:34:56"')
        nics.append(Nic(bridge=table.matching("bridge", _BRIDGE, '"br0"'), mac=mac))
        table.end()
    _refuse_twins(root, "networks", "mac", [nic.mac for nic in nics])
    return tuple(nics)


def _refuse_twins(root: StrictTable, key: str, what: str, values: list[str]) -> None:
    twins = {value for value in values if values.count(value) > 1}
    if twins:
        twin = sorted(twins)[0][:80]
        raise root.refuse(key, f"name one {what} twice: {twin!r}", f"give each its own {what}")


def _check_together(definition: VmDefinition, origin: str) -> None:
    """What no single key shows."""
    if definition.hardware and not definition.adopted:
        raise wrong(origin, "hardware", "is only for adopted VMs", "remove it")
    if definition.immovable and (definition.hardware or not definition.adopted):
        raise wrong(origin, "immovable", "is only for adopted VMs without hardware", "remove it")
    if definition.secure_boot and definition.firmware is not Firmware.UEFI:
        raise wrong(origin, "firmware.secure_boot", "needs UEFI", 'set firmware.kind = "uefi"')
    if definition.firmware is Firmware.BIOS and (definition.firmware_code or definition.firmware_variables):
        raise wrong(origin, "firmware.code", "is only for UEFI", 'set firmware.kind = "uefi" or remove it')
    if not definition.boot.kernel and (definition.boot.initrd or definition.boot.command_line):
        raise wrong(origin, "boot.kernel", "is missing", "name the kernel, or remove the rest of [boot]")


def _lines(definition: VmDefinition) -> Iterator[str]:
    yield f"name = {_quoted(definition.name)}"
    yield f"uuid = {_quoted(definition.uuid)}"
    yield f"memory = {definition.memory_bytes}"
    yield f"cpus = {definition.cpus}"
    yield f"cpu = {_quoted(definition.cpu_model)}"
    yield f"machine = {_quoted(definition.machine)}"
    yield f"accelerator = {_quoted(definition.accelerator)}"
    if definition.adopted:
        yield "adopted = true"
    if definition.hardware:
        yield f"hardware = [{', '.join(map(_quoted, definition.hardware))}]"
    if definition.immovable:
        yield f"immovable = {_quoted(definition.immovable)}"
    yield "\n[firmware]"
    yield f"kind = {_quoted(definition.firmware.value)}"
    yield f"secure_boot = {_word(definition.secure_boot)}"
    yield from _optional("code", definition.firmware_code)
    yield from _optional("variables", definition.firmware_variables)
    yield "\n[boot]"
    yield from _optional("kernel", definition.boot.kernel)
    yield from _optional("initrd", definition.boot.initrd)
    yield f"command_line = {_quoted(definition.boot.command_line)}"
    yield "\n[vtpm]"
    yield f"enabled = {_word(definition.vtpm)}"
    for disk in definition.disks:
        yield "\n[[disks]]"
        yield f"name = {_quoted(disk.name)}"
        yield f"path = {_quoted(disk.path)}"
        yield f"format = {_quoted(disk.format)}"
        for below in disk.backing:
            yield "\n[[disks.backing]]"
            yield f"path = {_quoted(below.path)}"
            yield f"format = {_quoted(below.format)}"
    for nic in definition.nics:
        yield "\n[[networks]]"
        yield f"bridge = {_quoted(nic.bridge)}"
        yield f"mac = {_quoted(nic.mac)}"


def _optional(key: str, value: str | None) -> Iterator[str]:
    if value is not None:
        yield f"{key} = {_quoted(value)}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a JSON string is a TOML basic string


def _word(value: bool) -> str:
    return "true" if value else "false"
