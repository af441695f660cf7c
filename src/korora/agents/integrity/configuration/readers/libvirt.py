"""libvirt's domain XML.

Source: libvirt, Domain XML format (formatdomain): elements, attributes and their defaults.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from korora.agents.integrity.configuration.readers.reading import Gathering
from korora.agents.integrity.configuration.readers.tree import Document, Key, Node, flatten
from korora.model.vm_settings import ConfigurationFormat, Fact, Field, Part, VmConfiguration

_YES: Final = {"yes": "on", "no": "off"}
_KINDS: Final = {"user": "NAT", "bridge": "bridged", "network": "virtual network", "direct": "macvtap"}
_MEMORY: Final = ("domain/memory", "domain/currentMemory", "domain/maxMemory")
_ONCE: Final = ("domain/name", "domain/uuid", "domain/vcpu", "domain/os", *_MEMORY)
_UNITS: Final = {
    "b": 1, "bytes": 1, "KB": 10**3, "k": 2**10, "KiB": 2**10, "MB": 10**6, "M": 2**20, "MiB": 2**20,
    "GB": 10**9, "G": 2**30, "GiB": 2**30, "TB": 10**12, "T": 2**40, "TiB": 2**40,
}  # fmt: skip
_SOURCES: Final = ("file", "dev", "dir", "name", "volume", "path")


def _attribute(name: str) -> Key:
    return lambda node: node.attributes.get(name)


def _of_target(node: Node) -> str | None:
    target = node.first("target")
    return target.attributes.get("dev") if target is not None else None


def _of_controller(node: Node) -> str | None:
    return f"{node.attributes.get('type', '')} {node.attributes.get('index', '')}".strip() or None


_KEYS: Final[dict[str, Key]] = {
    "disk": _of_target,
    "controller": _of_controller,
    "feature": _attribute("name"),
    "timer": _attribute("name"),
}


def read(document: Document) -> VmConfiguration:
    """A device without a key (an adapter, say) is told by its place among its like: their order counts."""
    gathering = Gathering(ConfigurationFormat.LIBVIRT)
    flatten(document, gathering, _KEYS)
    devices = [device for one in document.root.named("devices") for device in one.children]
    gathering.part(Part.VM, "", "", _vm(gathering, document.root, devices))
    for device in devices:
        _device(gathering, device)
    for path in gathering.again(_ONCE):
        gathering.note("warning", "twice", f"{path} is there again, and libvirt takes the first")
    if document.problem:
        gathering.bad("domain", document.problem, "is no XML from there on, and was read no further")
    return gathering.done()


def _vm(gathering: Gathering, root: Node, devices: list[Node]) -> Iterator[Fact | None]:
    yield gathering.text(Field.NAME, "domain/name")
    yield gathering.uuid(Field.UUID, "domain/uuid")
    sizes = [_memory(gathering, path) for path in _MEMORY]
    yield sizes[0]
    yield gathering.number(Field.CPUS, "domain/vcpu")
    yield gathering.joined(Field.CPU_MODEL, "domain/cpu/@mode", "domain/cpu/model")
    yield gathering.text(Field.MACHINE, "domain/os/type/@machine")
    yield _firmware(gathering)
    yield gathering.text(Field.FIRMWARE_IMAGE, "domain/os/loader")
    yield _secure_boot(gathering)
    tpms = [path for device in devices if device.name == "tpm" for path in gathering.under(device.path)]
    yield Fact(Field.TPM, "on" if tpms else "off", tuple(tpms))
    yield _boot_order(root, devices)
    yield gathering.text(Field.KERNEL, "domain/os/kernel")
    yield gathering.text(Field.INITRD, "domain/os/initrd")
    yield gathering.text(Field.COMMAND_LINE, "domain/os/cmdline")
    yield _arguments(gathering, root)


def _memory(gathering: Gathering, path: str) -> Fact | None:
    return gathering.size(Field.MEMORY, path, _UNITS, gathering.settings.pop(f"{path}/@unit", "KiB"))


def _firmware(gathering: Gathering) -> Fact | None:
    said = gathering.word(Field.FIRMWARE, "domain/os/@firmware", {"efi": "uefi", "bios": "bios"})
    if said is not None:
        return said
    kind = "domain/os/loader/@type"
    if gathering.settings.get(kind) == "pflash":
        return Fact(Field.FIRMWARE, "uefi", (kind,))
    return Fact(Field.FIRMWARE, "bios") if gathering.settings.get("domain/os/type") == "hvm" else None


def _secure_boot(gathering: Gathering) -> Fact | None:
    """Whether the firmware has it, or was asked to have it on: either way somebody wanted it."""
    paths = ("domain/os/loader/@secure", "domain/os/firmware/feature[secure-boot]/@enabled")
    facts = [fact for path in paths if (fact := gathering.word(Field.SECURE_BOOT, path, _YES))]
    if not facts:
        return None
    value = "on" if any(fact.value == "on" for fact in facts) else "off"
    return Fact(Field.SECURE_BOOT, value, tuple(path for fact in facts for path in fact.paths))


def _boot_order(root: Node, devices: list[Node]) -> Fact | None:
    """Of classes of devices (`hd`), or of devices, by the number that each has."""
    os = root.first("os")
    classes = list(os.named("boot")) if os is not None else []
    said = [boot.attributes.get("dev", "") for boot in classes]
    paths = [f"{boot.path}/@dev" for boot in classes]
    numbered = [(boot, device) for device in devices for boot in device.named("boot")]
    for boot, device in sorted(numbered, key=lambda pair: pair[0].attributes.get("order", "").rjust(4)):
        said.append(device.path.rpartition("/")[2])
        paths.append(f"{boot.path}/@order")
    return Fact(Field.BOOT_ORDER, ", ".join(said), tuple(paths)) if said else None


def _arguments(gathering: Gathering, root: Node) -> Fact | None:
    """What goes past libvirt to the emulator: elements of name spaces of their own."""
    foreign = [child for child in root.children if ":" in child.name or child.name[:1] == "{"]
    paths = tuple(path for node in foreign for path in gathering.under(node.path))
    said = " ".join(
        value
        for node in foreign
        for one in node.below()
        for value in (*one.attributes.values(), one.text)
        if value
    )
    return Fact(Field.ARGUMENTS, said, paths) if paths else None


def _device(gathering: Gathering, node: Node) -> None:
    path, kind = node.path, node.attributes.get("type", "")
    match node.name:
        case "disk":
            gathering.part(Part.DISK, _of_target(node) or "", path, _disk(gathering, node))
        case "interface":
            gathering.part(Part.NIC, "", path, _adapter(gathering, node))
            if kind == "hostdev":
                gathering.part(Part.PASSED, "", path, [_passed(gathering, node)])
        case "hostdev":
            gathering.part(Part.PASSED, "", path, [_passed(gathering, node)])
        case "filesystem":
            gathering.part(Part.SHARE, "", path, _share(gathering, node))
        case "graphics" if kind in {"vnc", "spice", "rdp"}:
            gathering.part(Part.DISPLAY, kind, path, _display(gathering, node))


def _disk(gathering: Gathering, node: Node) -> Iterator[Fact | None]:
    kind = node.attributes.get("device", "disk")
    yield Fact(Field.KIND, kind, (f"{node.path}/@device",))
    yield _source(node)
    yield gathering.text(Field.FORMAT, f"{node.path}/driver/@type")
    yield gathering.text(Field.BUS, f"{node.path}/target/@bus")
    yield _read_only(node, always=kind == "cdrom")


def _source(node: Node) -> Fact | None:
    """A file, a block device, or a name that a protocol or a pool gives it."""
    source = node.first("source")
    if source is None:
        return None
    names = [name for name in ("protocol", "pool", *_SOURCES) if name in source.attributes]
    value = " ".join(source.attributes[name] for name in names)
    return Fact(Field.PATH, value, tuple(f"{source.path}/@{name}" for name in names)) if value else None


def _read_only(node: Node, *, always: bool = False) -> Fact:
    said = node.first("readonly") is not None
    return Fact(Field.READ_ONLY, "yes" if said or always else "no", (f"{node.path}/readonly",))


def _adapter(gathering: Gathering, node: Node) -> Iterator[Fact | None]:
    kind = node.attributes.get("type", "")
    yield Fact(Field.KIND, _KINDS.get(kind, kind), (f"{node.path}/@type",))
    yield gathering.joined(
        Field.NETWORK, *(f"{node.path}/source/@{name}" for name in ("bridge", "network", "dev"))
    )
    yield gathering.mac(f"{node.path}/mac/@address")
    yield gathering.text(Field.MODEL, f"{node.path}/model/@type")


def _passed(gathering: Gathering, node: Node) -> Fact:
    paths = (
        *(path for path in (f"{node.path}/@mode", f"{node.path}/@type") if path in gathering.settings),
        *gathering.under(f"{node.path}/source"),
    )
    return Fact(Field.DEVICE, " ".join(gathering.settings[path] for path in paths), paths)


def _share(gathering: Gathering, node: Node) -> Iterator[Fact | None]:
    yield _source(node)
    yield gathering.text(Field.DEVICE, f"{node.path}/target/@dir")
    yield _read_only(node)


def _display(gathering: Gathering, node: Node) -> Iterator[Fact | None]:
    """Where it listens: as the host is set up, if it is not said. A password's value is never a fact."""
    yield Fact(Field.KIND, node.attributes.get("type", ""), (f"{node.path}/@type",))
    yield _address(node)
    password = f"{node.path}/@passwd"
    yield Fact(Field.PASSWORD, "set" if gathering.settings.get(password) else "none", (password,))


def _address(node: Node) -> Fact | None:
    listens = list(node.named("listen"))
    if listens and all(one.attributes.get("type") in {"none", "socket"} for one in listens):
        return Fact(Field.ADDRESS, "no network", tuple(f"{one.path}/@type" for one in listens))
    told = [(f"{one.path}/@address", one.attributes.get("address")) for one in listens]
    told.append((f"{node.path}/@listen", node.attributes.get("listen")))
    said = sorted({value for _, value in told if value})
    paths = tuple(path for path, value in told if value)
    return Fact(Field.ADDRESS, ", ".join(said), paths) if said else None
