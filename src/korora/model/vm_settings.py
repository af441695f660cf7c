"""What a VM's configuration file says, whatever its format: parts with facts, and every setting by its path.

Promise: nothing of a file is lost: what Korora has no word for stays a setting, what could not be read is
`Unparsed`. Limit: words of other hypervisors are kept as they are; whether a file exists is nobody's question
here. `model/definition.py` is Korora's own definition, `model/configuration.py` that of a host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

MAX_TEXT_BYTES: Final = 4096
"""Of the text that an `Unparsed` keeps."""
Severity = Literal["info", "warning", "critical"]


class ConfigurationFormat(StrEnum):
    LIBVIRT = "libvirt"
    XEN = "xen"
    VMWARE = "vmware"
    VIRTUALBOX = "virtualbox"
    OVF = "ovf"
    KORORA = "korora"


class Part(StrEnum):
    """The VM itself, and its devices that formats have in common."""

    VM = "VM"
    DISK = "disk"
    NIC = "network adapter"
    PASSED = "passed-through device"
    SHARE = "shared folder"
    DISPLAY = "remote display"


class Field(StrEnum):
    """What is said of a part. Of the VM down to `ARGUMENTS`, of its devices from `SLOT` on."""

    NAME = "name"
    UUID = "UUID"
    MEMORY = "memory"  # bytes, in decimal
    CPUS = "CPUs"
    CPU_MODEL = "CPU model"
    MACHINE = "machine"
    FIRMWARE = "firmware"  # bios | uefi
    FIRMWARE_IMAGE = "firmware image"
    SECURE_BOOT = "Secure Boot"  # on | off
    TPM = "TPM"  # on | off
    BOOT_ORDER = "boot order"
    KERNEL = "kernel"
    INITRD = "initrd"
    COMMAND_LINE = "kernel command line"
    ARGUMENTS = "emulator arguments"

    SLOT = "slot"
    KIND = "kind"
    PATH = "path"
    FORMAT = "format"
    BUS = "bus"
    READ_ONLY = "read-only"  # yes | no
    NETWORK = "network"
    MAC = "MAC address"
    MODEL = "model"
    DEVICE = "device"
    ADDRESS = "address"
    PASSWORD = "password"  # set | none  # noqa: S105


@dataclass(frozen=True, slots=True)
class Fact:
    """`paths`: the settings that say it; none where the format says it by saying nothing."""

    field: Field
    value: str
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Component:
    """`slot`: how its format tells it from its like, such as `vda`. `root`: where its settings lie."""

    part: Part
    slot: str
    root: str
    facts: tuple[Fact, ...]

    def get(self, field: Field) -> str | None:
        return next((fact.value for fact in self.facts if fact.field is field), None)


@dataclass(frozen=True, slots=True)
class Unparsed:
    """A setting that could not be read. `place`: a line (`line 7`) or a path; `text`: at most 4 KiB of it."""

    place: str
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class ConfigurationFinding:
    """Something of the file that a person should know. `kind` is stable, for scripts."""

    severity: Severity
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class VmConfiguration:
    """One file. `settings`: path → value, all that it says, each spelt in one way (docs/CONFIGURATION.md)."""

    format: ConfigurationFormat
    settings: Mapping[str, str]
    components: tuple[Component, ...]
    unparsed: tuple[Unparsed, ...] = ()
    findings: tuple[ConfigurationFinding, ...] = ()

    def of(self, part: Part) -> Iterator[Component]:
        return (one for one in self.components if one.part is part)


@dataclass(frozen=True, slots=True)
class SettingChange:
    """`what`: the part and its number (`disk 2`), or a setting's path. None: it was not there, or is not now.

    `field`: None of a part that came or went, and of a setting without a word. `expected`: a move does that.
    `paths`: the settings that say it, of both files.
    """

    part: Part | None
    what: str
    field: Field | None
    before: str | None
    after: str | None
    severity: Severity
    expected: bool = False
    paths: tuple[str, ...] = ()


def trimmed(text: str) -> str:
    """At most `MAX_TEXT_BYTES` of UTF-8, cut between characters."""
    data = text.encode("utf-8", "backslashreplace")
    return data[:MAX_TEXT_BYTES].decode("utf-8", "ignore")
