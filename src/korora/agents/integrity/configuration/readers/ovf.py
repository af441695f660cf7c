"""OVF descriptors: the envelope, its files, disks and networks, and the hardware of one virtual system.

Limit: of a collection of several systems every setting is kept, and none has a word: which system is meant,
the file does not say.

Source: DMTF DSP0243, Open Virtualization Format 2.1, and DSP8023's name spaces; resource types of CIM's
CIM_ResourceAllocationSettingData; VMware's `vmw:Config`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from korora.agents.integrity.configuration.readers.reading import Gathering
from korora.agents.integrity.configuration.readers.tree import Document, Key, Node, flatten
from korora.model.vm_settings import ConfigurationFormat, Fact, Field, Part, VmConfiguration

_CPU, _MEMORY, _NIC, _FLOPPY, _CD, _DVD, _DISK = "3", "4", "10", "14", "15", "16", "17"
_BUSES: Final = {"5": "ide", "6": "scsi", "20": "sata"}
_KINDS: Final = {_DISK: "disk", _CD: "cdrom", _DVD: "cdrom", _FLOPPY: "floppy"}
_UNITS: Final = {
    "byte": 1, "bytes": 1, "KB": 2**10, "KILOBYTE": 2**10, "KILOBYTES": 2**10, "MB": 2**20, "MEGABYTE": 2**20,
    "MEGABYTES": 2**20, "GB": 2**30, "GIGABYTE": 2**30, "GIGABYTES": 2**30, "TERABYTES": 2**40,
}  # fmt: skip
_SECOND: Final = "http://schemas.dmtf.org/ovf/envelope/2"
_ITEMS: Final = {"Item": "rasd:", "StorageItem": "sasd:", "EthernetPortItem": "epasd:"}
"""Kinds of devices' elements, each with the name space of its fields."""
_POWER: Final = re.compile(r"\s*byte\s*\*\s*2\s*\^\s*([1-5]0)\s*", re.IGNORECASE)
_SWITCH: Final = {"true": "on", "false": "off", "TRUE": "on", "FALSE": "off"}


def _attribute(name: str) -> Key:
    return lambda node: node.attributes.get(name)


def _instance(node: Node) -> str | None:
    found = node.first(f"{_ITEMS[node.name]}InstanceID")
    return found.text if found is not None and found.text else None


def _configured(node: Node) -> str | None:
    return node.attributes.get("vmw:key")


def _keys(ovf: str) -> dict[str, Key]:
    return {
        "File": _attribute(f"{ovf}id"),
        "Disk": _attribute(f"{ovf}diskId"),
        "Network": _attribute(f"{ovf}name"),
        "VirtualSystem": _attribute(f"{ovf}id"),
        "Property": _attribute(f"{ovf}key"),
        **dict.fromkeys(_ITEMS, _instance),
        "vmw:Config": _configured,
        "vmw:ExtraConfig": _configured,
        "ExtraDataItem": _attribute("name"),
        "SharedFolder": _attribute("name"),
    }


def read(document: Document) -> VmConfiguration:
    gathering = Gathering(ConfigurationFormat.OVF)
    ovf = "ovf2:" if document.root.namespace == _SECOND else "ovf:"
    flatten(document, gathering, _keys(ovf))
    systems = [node for node in document.root.below() if node.name == "VirtualSystem"]
    if len(systems) == 1:
        _system(gathering, document.root, systems[0], ovf)
    else:
        gathering.note(
            "warning",
            "systems",
            f"it describes {len(systems)} virtual systems, so its settings are told by path",
        )
    if document.problem:
        gathering.bad("Envelope", document.problem, "is no XML from there on, and was read no further")
    return gathering.done()


class _Item:
    """One device. `said`: its fields by their names in CIM."""

    def __init__(self, node: Node) -> None:
        self.path = node.path
        self._prefix = _ITEMS[node.name]
        self.said = {
            child.name.removeprefix(self._prefix): child
            for child in reversed(node.children)
            if child.name.startswith(self._prefix)
        }

    def text(self, name: str) -> str:
        child = self.said.get(name)
        return child.text if child is not None else ""

    def at(self, name: str) -> str:
        child = self.said.get(name)
        return child.path if child is not None else f"{self.path}/{self._prefix}{name}"


def _system(gathering: Gathering, root: Node, system: Node, ovf: str) -> None:
    hardware = list(system.named("VirtualHardwareSection"))
    items = [_Item(node) for one in hardware for node in one.children if node.name in _ITEMS]
    config = {
        node.attributes.get("vmw:key", "").lower(): f"{node.path}/@vmw:value"
        for one in hardware
        for node in one.children
        if node.name in {"vmw:Config", "vmw:ExtraConfig"}
    }
    gathering.part(Part.VM, "", "", _vm(gathering, system, hardware, items, config, ovf))
    media = _Media(root, items, ovf)
    for item in items:
        kind = item.text("ResourceType")
        if kind in _KINDS:
            gathering.part(Part.DISK, _slot(item), item.path, _disk(gathering, media, item))
        elif kind == _NIC:
            gathering.part(Part.NIC, _slot(item), item.path, _adapter(gathering, item))
        elif "passthrough" in item.text("ResourceSubType").lower():
            said = gathering.under(item.path)
            value = " ".join(gathering.settings[path] for path in said)
            gathering.part(Part.PASSED, "", item.path, [Fact(Field.DEVICE, value, said)])


def _slot(item: _Item) -> str:
    return item.text("InstanceID")


def _vm(
    gathering: Gathering,
    system: Node,
    hardware: list[Node],
    items: list[_Item],
    config: dict[str, str],
    ovf: str,
) -> Iterator[Fact | None]:
    yield gathering.text(Field.NAME, f"{system.path}/Name") or gathering.text(
        Field.NAME, f"{system.path}/@{ovf}id"
    )
    for item in items:
        if item.text("ResourceType") == _MEMORY:
            yield _memory(gathering, item)
        elif item.text("ResourceType") == _CPU:
            yield gathering.number(Field.CPUS, item.at("VirtualQuantity"))
    kinds = [f"{one.path}/System/vssd:VirtualSystemType" for one in hardware]
    yield gathering.joined(Field.MACHINE, *kinds)
    firmware = {"efi": "uefi", "bios": "bios"}
    yield gathering.word(Field.FIRMWARE, config.get("firmware", ""), firmware)
    for key in ("uefi.secureboot.enabled", "bootoptions.efisecurebootenabled"):
        if key in config:
            yield gathering.word(Field.SECURE_BOOT, config[key], _SWITCH)
            break
    tpms = [path for item in items if _is_tpm(item) for path in gathering.under(item.path)]
    yield Fact(Field.TPM, "on" if tpms else "off", tuple(tpms))


def _is_tpm(item: _Item) -> bool:
    return item.text("ResourceSubType").lower().endswith("vtpm")


def _memory(gathering: Gathering, item: _Item) -> Fact | None:
    """In megabytes if the file says no unit, as was usual before OVF 1.0."""
    unit = gathering.settings.pop(item.at("AllocationUnits"), "MB")
    power = _POWER.fullmatch(unit)
    units = (
        {unit: 2 ** int(power[1])}
        if power
        else {**_UNITS, unit: _UNITS.get(unit.upper(), _UNITS.get(unit, 0))}
    )
    if not units[unit]:
        gathering.bad(item.at("AllocationUnits"), unit, "is no unit that OVF knows")
        return None
    return gathering.size(Field.MEMORY, item.at("VirtualQuantity"), units, unit)


class _Media:
    """What a disk's item refers to, each by its name."""

    def __init__(self, root: Node, items: list[_Item], ovf: str) -> None:
        self.ovf = ovf
        self.controllers = {_slot(item): item for item in items if _slot(item)}
        self.files = {
            node.attributes.get(f"{ovf}id", ""): node
            for one in root.named("References")
            for node in one.named("File")
        }
        self.disks = {
            node.attributes.get(f"{ovf}diskId", ""): node
            for one in root.named("DiskSection")
            for node in one.named("Disk")
        }


def _disk(gathering: Gathering, media: _Media, item: _Item) -> Iterator[Fact | None]:
    kind = _KINDS[item.text("ResourceType")]
    yield Fact(Field.KIND, kind, (item.at("ResourceType"),))
    yield from _medium(gathering, media, item)
    parent = media.controllers.get(item.text("Parent"))
    if parent is not None:
        bus = _BUSES.get(parent.text("ResourceType"), "")
        bus = "nvme" if "nvme" in parent.text("ResourceSubType").lower() else bus
        yield Fact(Field.BUS, bus, (parent.at("ResourceType"),)) if bus else None
    yield Fact(Field.READ_ONLY, "yes" if kind == "cdrom" else "no")


def _medium(gathering: Gathering, media: _Media, item: _Item) -> Iterator[Fact | None]:
    """`ovf:/disk/ID` is a disk, whose file it names; `ovf:/file/ID` a file itself."""
    resource = item.text("HostResource").removeprefix("ovf:")
    kind, _, name = resource.strip("/").partition("/")
    path = item.at("HostResource")
    disk = media.disks.get(name) if kind == "disk" else None
    file = media.files.get(disk.attributes.get(f"{media.ovf}fileRef", "") if disk is not None else name)
    if file is not None:
        href = gathering.text(Field.PATH, f"{file.path}/@{media.ovf}href")
        yield Fact(Field.PATH, href.value, (path, *href.paths)) if href is not None else None
    elif resource:
        yield Fact(Field.PATH, resource, (path,))
    if disk is not None and "vmdk" in disk.attributes.get(f"{media.ovf}format", "").lower():
        yield Fact(Field.FORMAT, "vmdk", (f"{disk.path}/@{media.ovf}format",))


def _adapter(gathering: Gathering, item: _Item) -> Iterator[Fact | None]:
    """What the network is, the file does not say: whoever deploys it decides."""
    yield gathering.text(Field.NETWORK, item.at("Connection"))
    yield gathering.mac(item.at("Address"))
    yield gathering.text(Field.MODEL, item.at("ResourceSubType"))
