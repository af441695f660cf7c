"""VirtualBox's machine settings, .vbox.

Limit: whether Secure Boot is on stands in the machine's NVRAM file, and not here.

Source: VirtualBox's own Settings.cpp and VirtualBox-settings.xsd, and files that it wrote (versions 1.6 to
1.20); of Secure Boot its UefiVariableStoreImpl.cpp and NvramStoreImpl.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from korora.agents.integrity.configuration.readers.reading import Gathering
from korora.agents.integrity.configuration.readers.tree import Document, Key, Node, flatten
from korora.model.vm_settings import ConfigurationFormat, Fact, Field, Part, VmConfiguration

_MIB: Final = 2**20
_HARDWARE: Final = "VirtualBox/Machine/Hardware"
_ONCE: Final = ("VirtualBox/Machine", _HARDWARE, *(
    f"{_HARDWARE}/{name}" for name in (
        "CPU", "Memory", "Firmware", "Chipset", "TrustedPlatformModule", "Boot", "Network", "RemoteDisplay",
        "BIOS",
    )
))  # fmt: skip
_FIRMWARE: Final = {"BIOS": "bios", "EFI": "uefi", "EFI32": "uefi", "EFI64": "uefi", "EFIDUAL": "uefi"}
_KINDS: Final = {
    "NAT": "NAT", "NATNetwork": "NAT network", "BridgedInterface": "bridged", "HostOnlyInterface":
    "host-only", "HostInterface": "bridged", "HostOnlyNetwork": "host-only network", "InternalNetwork":
    "internal", "GenericInterface": "generic", "CloudNetwork": "cloud",
}  # fmt: skip
_DEVICES: Final = {"HardDisk": "disk", "DVD": "cdrom", "Floppy": "floppy"}
_BUSES: Final = {
    "AHCI": "sata", "PIIX3": "ide", "PIIX4": "ide", "ICH6": "ide", "LsiLogic": "scsi", "BusLogic": "scsi",
    "LsiLogicSas": "sas", "I82078": "fdc", "USB": "usb", "NVMe": "nvme", "VirtioSCSI": "virtio-scsi",
}  # fmt: skip
_INTERNAL: Final = "VBoxInternal"  # extra data under this name go past the settings, to the emulator itself


def _by(*names: str) -> Key:
    def key(node: Node) -> str | None:
        said = [node.attributes[name] for name in names if name in node.attributes]
        return " ".join(said) if len(said) == len(names) else None

    return key


_KEYS: Final[dict[str, Key]] = {
    "ExtraDataItem": _by("name"),
    "GuestProperty": _by("name"),
    "Property": _by("name"),
    "SharedFolder": _by("name"),
    "HardDisk": _by("uuid"),
    "Image": _by("uuid"),
    "Snapshot": _by("uuid"),
    "StorageController": _by("name"),
    "AttachedDevice": _by("port", "device"),
    "Adapter": _by("slot"),
    "Order": _by("position"),
    "Port": _by("slot"),
    "Group": _by("name"),
    "Forwarding": _by("name"),
}


def read(document: Document) -> VmConfiguration:
    gathering = Gathering(ConfigurationFormat.VIRTUALBOX)
    flatten(document, gathering, _KEYS)
    machine = document.root.first("Machine")
    if machine is None:
        gathering.bad("VirtualBox", "", "there is no Machine in it")
    else:
        gathering.part(Part.VM, "", "", _vm(gathering, machine))
        _devices(gathering, machine)
    for path in gathering.again(_ONCE):
        gathering.bad(path, "", "is there again, and which of them VirtualBox takes is not known")
    if document.problem:
        gathering.bad("VirtualBox", document.problem, "is no XML from there on, and was read no further")
    return gathering.done()


def _vm(gathering: Gathering, machine: Node) -> Iterator[Fact | None]:
    yield gathering.text(Field.NAME, "VirtualBox/Machine/@name")
    yield gathering.uuid(Field.UUID, "VirtualBox/Machine/@uuid")
    yield gathering.number(Field.MEMORY, f"{_HARDWARE}/Memory/@RAMSize", unit=_MIB)
    yield gathering.number(Field.CPUS, f"{_HARDWARE}/CPU/@count") or Fact(Field.CPUS, "1")
    yield gathering.text(Field.CPU_MODEL, f"{_HARDWARE}/CPU/@CpuProfile")
    yield gathering.text(Field.MACHINE, f"{_HARDWARE}/Chipset/@type")
    yield gathering.word(Field.FIRMWARE, f"{_HARDWARE}/Firmware/@type", _FIRMWARE) or Fact(
        Field.FIRMWARE, "bios"
    )
    tpm = f"{_HARDWARE}/TrustedPlatformModule/@type"
    yield Fact(Field.TPM, "off" if gathering.settings.get(tpm, "None") == "None" else "on", (tpm,))
    boot = machine.first("Hardware", "Boot")
    orders = sorted(boot.named("Order"), key=lambda node: node.attributes.get("position", "")) if boot else []
    if orders:
        said = ", ".join(order.attributes.get("device", "") for order in orders)
        yield Fact(Field.BOOT_ORDER, said, tuple(f"{order.path}/@device" for order in orders))
    extra = machine.first("ExtraData")
    inner = (
        [node for node in extra.children if node.attributes.get("name", "").startswith(_INTERNAL)]
        if extra
        else []
    )
    if inner:
        paths = tuple(path for node in inner for path in gathering.under(node.path))
        words = " ".join(f"{node.attributes['name']}={node.attributes.get('value', '')}" for node in inner)
        yield Fact(Field.ARGUMENTS, words, paths)


def _devices(gathering: Gathering, machine: Node) -> None:
    hardware = machine.first("Hardware")
    if hardware is None:
        return
    media = {
        node.attributes.get("uuid", ""): node
        for one in machine.named("MediaRegistry")
        for node in one.below()
    }
    for controllers in (*machine.named("StorageControllers"), *hardware.named("StorageControllers")):
        for controller in controllers.named("StorageController"):
            for device in controller.named("AttachedDevice"):
                slot = f"{controller.attributes.get('name', '')} {_by('port', 'device')(device) or ''}"
                gathering.part(Part.DISK, slot, device.path, _disk(gathering, controller, device, media))
    for adapter in _below(hardware, "Network", "Adapter"):
        gathering.mac(f"{adapter.path}/@MACAddress")  # one spelling, though it be switched off
        if adapter.attributes.get("enabled") == "true":
            slot = adapter.attributes.get("slot", "")
            gathering.part(Part.NIC, slot, adapter.path, _adapter(gathering, adapter))
    for folder in _below(hardware, "SharedFolders", "SharedFolder"):
        gathering.part(Part.SHARE, folder.attributes.get("name", ""), folder.path, _share(gathering, folder))
    passed = [node for node in hardware.below() if _is_passed(node)]
    for node in passed:
        value = " ".join(f"{key}={node.attributes[key]}" for key in sorted(node.attributes))
        gathering.part(Part.PASSED, "", node.path, [Fact(Field.DEVICE, value, gathering.under(node.path))])
    for display in hardware.named("RemoteDisplay"):
        if display.attributes.get("enabled") != "false":
            gathering.part(Part.DISPLAY, "vrde", display.path, _display(gathering, display))


def _below(node: Node, outer: str, inner: str) -> Iterator[Node]:
    return (child for one in node.named(outer) for child in one.named(inner))


def _is_passed(node: Node) -> bool:
    """A PCI device of the host, or a filter that gives the guest the USB devices that it matches."""
    if node.name == "DeviceFilter":
        return node.attributes.get("active") == "true"
    return node.name == "Device" and "host" in node.attributes and "/HostPci" in node.path


def _disk(
    gathering: Gathering, controller: Node, device: Node, media: dict[str, Node]
) -> Iterator[Fact | None]:
    kind = _DEVICES.get(device.attributes.get("type", ""), device.attributes.get("type", ""))
    yield Fact(Field.KIND, kind, (f"{device.path}/@type",))
    image = device.first("Image")
    medium = media.get(image.attributes.get("uuid", "")) if image is not None else None
    if medium is not None:
        yield gathering.text(Field.PATH, f"{medium.path}/@location")
        if (said := medium.attributes.get("format")) is not None:
            yield Fact(Field.FORMAT, said.lower(), (f"{medium.path}/@format",))
    bus = controller.attributes.get("type", "")
    yield Fact(Field.BUS, _BUSES.get(bus, bus), (f"{controller.path}/@type",))
    fixed = kind == "cdrom" or (medium is not None and medium.attributes.get("type") == "Readonly")
    yield Fact(Field.READ_ONLY, "yes" if fixed else "no", (f"{medium.path}/@type",) if medium else ())


def _adapter(gathering: Gathering, adapter: Node) -> Iterator[Fact | None]:
    """What it is attached to is the one element that is not among the `DisabledModes`."""
    mode = next((child for child in adapter.children if child.name in _KINDS), None)
    if mode is not None:
        yield Fact(Field.KIND, _KINDS[mode.name], gathering.under(mode.path))
        yield gathering.text(Field.NETWORK, f"{mode.path}/@name")
    yield gathering.mac(f"{adapter.path}/@MACAddress")
    yield gathering.text(Field.MODEL, f"{adapter.path}/@type")


def _share(gathering: Gathering, folder: Node) -> Iterator[Fact | None]:
    yield gathering.text(Field.PATH, f"{folder.path}/@hostPath")
    yield gathering.text(Field.DEVICE, f"{folder.path}/@name")
    said = gathering.word(Field.READ_ONLY, f"{folder.path}/@writable", {"true": "no", "false": "yes"})
    yield said or Fact(Field.READ_ONLY, "yes")


def _display(gathering: Gathering, display: Node) -> Iterator[Fact | None]:
    """Open to every address if none is said. Without `authType` VirtualBox asks nobody."""
    yield Fact(Field.KIND, "vrde", (f"{display.path}/@enabled",))
    yield gathering.text(Field.ADDRESS, f"{display.path}/VRDEProperties/Property[TCP%2fAddress]/@value")
    asked = f"{display.path}/@authType"
    secured = gathering.settings.get(asked, "Null") != "Null"
    yield Fact(Field.PASSWORD, "set" if secured else "none", (asked,))
