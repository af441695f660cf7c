"""Xen's configuration files, as xl reads them.

Of a name that comes twice xl takes the last; a NUMBER is the same as a STRING of it. Source: xl.cfg(5),
xl-disk-configuration(5), xl-network-configuration(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from korora.agents.integrity.configuration.readers.reading import MAX_PATH, Gathering, escaped
from korora.agents.integrity.configuration.readers.xl_grammar import (
    Assignment,
    Atom,
    Broken,
    Value,
    statements,
)
from korora.model.vm_settings import ConfigurationFormat, Fact, Field, Part, VmConfiguration

_MIB: Final = 2**20
_MAX_NAME: Final = 200
_NUMBERS: Final = frozenset({
    "memory", "maxmem", "vcpus", "maxvcpus", "cpu_weight", "cap", "vnc", "vncdisplay", "vncunused", "sdl",
    "opengl", "spice", "spiceport", "spicetls_port", "spicedisable_ticketing", "spiceagent_mouse",
    "spicevdagent", "videoram", "stdvga", "acpi", "apic", "pae", "nx", "hap", "hpet", "usb", "localtime",
    "rtc_timeoffset", "shadow_memory", "xen_platform_pci", "nestedhvm", "altp2m", "vpt_align", "acpi_s3",
    "acpi_s4", "max_grant_frames", "nomigrate", "max_maptrack_frames", "max_event_channels",
    "pci_msitranslate", "pci_power_mgmt", "pci_permissive", "e820_host", "driver_domain",
    "xend_suspend_evtchn_compat", "claim_mode", "gfx_passthru", "vkb_device", "suppress_vmdesc",
})  # fmt: skip
_FIRMWARE: Final = {"ovmf": "uefi", "seabios": "bios", "rombios": "bios"}
_PASSED: Final = ("pci", "usbdev", "dtdev", "ioports", "iomem", "irqs", "rdm", "usbdevice")
_ARGUMENTS: Final = ("device_model_args", "device_model_args_pv", "device_model_args_hvm")
_FORMATS: Final = {"raw", "qcow", "qcow2", "vhd", "qed"}
_ACCESS: Final = {"r": "ro", "ro": "ro", "w": "rw", "rw": "rw"}
_OLD: Final = re.compile(r"(?:(?:phy|file|ioemu|tap2?|aio|tapdisk|raw|qcow2?|vhd):)+")
_POSITIONAL: Final = ("target", "format", "vdev", "access")
_VDEV: Final = re.compile(r"disk\[[^/]*\]/vdev")
_TARGET: Final = re.compile(r"(?:^|,)\s*target\s*=")
_ITEM: Final = re.compile(r"[A-Za-z0-9_-]{1,40}\s*=")


def read(text: str) -> VmConfiguration:
    """Lines that are not in xl's language are told, and the rest is read."""
    gathering = Gathering(ConfigurationFormat.XEN)
    said: dict[str, list[Assignment]] = {}
    for one in statements(text):
        if isinstance(one, Broken):
            gathering.bad(f"line {one.line}", one.text, one.why)
        elif len(one.name) > _MAX_NAME:
            gathering.bad(f"line {one.line}", one.name, "its name is too long")
        elif one.adds:
            said.setdefault(one.name, []).append(one)
        else:
            for before in said.get(one.name, ()):
                gathering.note(
                    "warning", "twice", f"{one.name!r} is set again in line {one.line}: xl takes the last"
                )
                _put(gathering, f"{one.name}#before", before.value, f"line {before.line}")
            said[one.name] = [one]
    for name, assignments in said.items():
        _put(gathering, name, _sum(gathering, assignments), f"line {assignments[0].line}")
    gathering.part(Part.VM, "", "", _vm(gathering))
    _devices(gathering)
    return gathering.done()


def _sum(gathering: Gathering, assignments: list[Assignment]) -> Value:
    """Of what was set, and what was added to it with `+=`: strings to a string, lists to a list."""
    first = assignments[0]
    items: list[Value] = []
    texts: list[str] = []
    for one in assignments:
        adds_to_number = len(assignments) > 1 and first.name in _NUMBERS
        if isinstance(one.value, list) is not isinstance(first.value, list) or adds_to_number:
            gathering.bad(f"line {one.line}", f"{one.name} += …", "cannot be added to what it was")
        elif isinstance(one.value, list):
            items += one.value
        else:
            texts.append(one.value.text)
    if isinstance(first.value, list):
        return items
    return Atom("".join(texts), number=first.value.number and len(assignments) == 1)


def _put(gathering: Gathering, path: str, value: Value, place: str) -> None:
    if isinstance(value, Atom):
        gathering.put(path, _number(value.text) if path in _NUMBERS else value.text, place)
        return
    if not value:
        gathering.put(f"{path}[]", "", place)
    for index, item in enumerate(value, start=1):
        if path == "disk" and isinstance(item, Atom):
            _put_disk(gathering, item.text, place)
        elif path in {"vif", "vfb"} and isinstance(item, Atom):
            _put_items(gathering, f"{path}[{index}]", item.text, place)
        else:
            _put(gathering, f"{path}[{index}]", item, place)


def _number(text: str) -> str:
    """As C's strtol reads it with base 0: 0x is hexadecimal, a leading 0 octal. Other text stays as it is."""
    match = re.fullmatch("(-?)(?:0x([0-9a-f]{1,16})|0([0-7]{1,21})|(0|[1-9][0-9]{0,18}))", text.lower())
    if match is None:
        return text
    value = int(match[2], 16) if match[2] else int(match[3], 8) if match[3] else int(match[4])
    return str(-value if match[1] else value)


def _put_disk(gathering: Gathering, text: str, place: str) -> None:
    """A disk's words by name, with what is not said written out. `target=` takes the rest of the string."""
    if len(text) > MAX_PATH:
        gathering.bad(place, text, "says too much of a disk")
        return
    old = _OLD.match(text.strip())
    rest = text.strip()[old.end() :] if old else text.strip()
    named = _TARGET.search(rest)
    pieces = (rest[: named.start()] if named else rest).split(",")
    words = [_disk_word(piece.strip()) for piece in pieces] if pieces != [""] else []
    if named:
        words.append(("target", rest[named.end() :].strip()))
    said: dict[str, str] = {}
    if old:  # which says the format, so that no word does by its place
        kind = re.search("raw|qcow2?|vhd", old[0])
        said["format"] = kind[0] if kind else "raw"
    for name, value in words:
        name = name or next((one for one in _POSITIONAL if one not in said), "")  # noqa: PLW2901
        if name in said or not name:
            gathering.bad(place, text, "says one thing of a disk twice, or too much")
            return
        said[name] = value
    if said.get("vdev", "").endswith(":cdrom"):
        said |= {"vdev": said["vdev"].removesuffix(":cdrom"), "devtype": "cdrom"}
    _check_disk(gathering, said, text, place)


def _disk_word(word: str) -> tuple[str, str]:
    """Its name, empty where its place says it, and its value."""
    if word == "cdrom":
        return "devtype", "cdrom"
    match = _ITEM.match(word)
    return (word[: match.end() - 1].strip(), word[match.end() :].strip()) if match else ("", word)


def _check_disk(gathering: Gathering, said: dict[str, str], text: str, place: str) -> None:
    said["format"] = {"": "raw", "aio": "raw"}.get(said.get("format", ""), said.get("format", ""))
    said["access"] = said.get("access", "") or ("ro" if said.get("devtype") == "cdrom" else "rw")
    if said["format"] not in _FORMATS or said["access"] not in _ACCESS or not said.get("vdev"):
        gathering.bad(place, text, "is no disk that xl knows")
    said["access"] = _ACCESS.get(said["access"], said["access"])
    for name in sorted(said):
        gathering.put(f"disk[{escaped(said.get('vdev', ''))}]/{escaped(name)}", said[name], place)


def _put_items(gathering: Gathering, path: str, text: str, place: str) -> None:
    """`mac=…,bridge=…` in whatever order."""
    if not text.strip():
        gathering.put(path, "", place)
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        name, sign, value = piece.partition("=")
        if not sign or not _ITEM.match(piece):
            gathering.bad(place, text, f"{piece[:40]!r} is no key=value")
        gathering.put(f"{path}/{escaped(name.strip())}", value.strip(), place)


def _vm(gathering: Gathering) -> Iterator[Fact | None]:
    yield gathering.text(Field.NAME, "name")
    yield gathering.uuid(Field.UUID, "uuid")
    yield gathering.number(Field.MEMORY, "memory", unit=_MIB)
    yield gathering.number(Field.CPUS, "vcpus")
    yield _of_all(gathering, Field.CPU_MODEL, ("cpuid", "cpuid_policy"))
    yield gathering.joined(Field.MACHINE, "type", "builder")
    yield gathering.word(Field.FIRMWARE, "bios", _FIRMWARE) or _default_firmware(gathering)
    yield gathering.joined(Field.FIRMWARE_IMAGE, "bios_path_override", "firmware_override", "firmware")
    tpm = [path for path in gathering.settings if path.startswith("vtpm[") and path != "vtpm[]"]
    yield Fact(Field.TPM, "on" if tpm else "off", tuple(sorted(tpm)))
    yield gathering.text(Field.BOOT_ORDER, "boot")
    yield gathering.joined(Field.KERNEL, "kernel", "bootloader")
    yield gathering.text(Field.INITRD, "ramdisk")
    yield gathering.joined(Field.COMMAND_LINE, "cmdline", "root", "extra", "bootloader_args")
    yield _of_all(gathering, Field.ARGUMENTS, _ARGUMENTS)


def _default_firmware(gathering: Gathering) -> Fact | None:
    """An hvm guest has SeaBIOS if nothing else is said."""
    kinds = {gathering.settings.get("type"), gathering.settings.get("builder")}
    return Fact(Field.FIRMWARE, "bios") if "hvm" in kinds and "bios" not in gathering.settings else None


def _of_all(gathering: Gathering, field: Field, names: tuple[str, ...]) -> Fact | None:
    """Of a name, or of all items of its list."""
    paths = tuple(path for path in gathering.settings if path.partition("[")[0] in names)
    return Fact(field, " ".join(gathering.settings[path] for path in paths), paths) if paths else None


def _devices(gathering: Gathering) -> None:
    for path in [path for path in gathering.settings if _VDEV.fullmatch(path)]:
        root = path.removesuffix("/vdev")
        gathering.part(Part.DISK, gathering.settings[path], root, _disk(gathering, root))
    for root in _items(gathering, "vif"):
        gathering.part(Part.NIC, "", root, _adapter(gathering, root))
    for name in _PASSED:
        for root in _items(gathering, name):
            value = gathering.settings.get(root, "")
            if name != "usbdevice" or value.startswith("host:"):
                gathering.part(
                    Part.PASSED, "", root, [Fact(Field.DEVICE, f"{name} {value}", gathering.under(root))]
                )
    for root in _items(gathering, "p9"):
        gathering.part(Part.SHARE, "", root, _share(gathering, root))
    _displays(gathering)


def _items(gathering: Gathering, name: str) -> list[str]:
    """The roots of a list's items; of a name without a list, itself."""
    roots = dict.fromkeys([name] if name in gathering.settings else [])
    for path in gathering.settings:
        root = path.partition("/")[0]
        if root.startswith(f"{name}[") and root != f"{name}[]":
            roots[root] = None
    return list(roots)


def _disk(gathering: Gathering, root: str) -> Iterator[Fact | None]:
    cdrom = gathering.settings.get(f"{root}/devtype") == "cdrom"
    yield Fact(Field.KIND, "cdrom" if cdrom else "disk", (f"{root}/devtype",))
    yield gathering.text(Field.PATH, f"{root}/target")
    yield gathering.text(Field.FORMAT, f"{root}/format")
    yield gathering.word(Field.READ_ONLY, f"{root}/access", {"ro": "yes", "rw": "no"})


def _adapter(gathering: Gathering, root: str) -> Iterator[Fact | None]:
    """By xl's networking scripts; a bridge is what it takes without one."""
    script = gathering.settings.get(f"{root}/script", "")
    kind = "NAT" if "nat" in script else "routed" if "route" in script else "bridged"
    yield Fact(Field.KIND, kind, (f"{root}/script",))
    yield gathering.text(Field.NETWORK, f"{root}/bridge")
    yield gathering.mac(f"{root}/mac")
    yield gathering.text(Field.MODEL, f"{root}/model")


def _share(gathering: Gathering, root: str) -> Iterator[Fact | None]:
    words = dict(piece.partition("=")[::2] for piece in gathering.settings.get(root, "").split(","))
    for field, name in ((Field.PATH, "path"), (Field.DEVICE, "tag")):
        yield Fact(field, words[name].strip(), (root,)) if name in words else None


def _displays(gathering: Gathering) -> None:
    """VNC and SPICE of hvm guests, and virtual frame buffers."""
    for root in _items(gathering, "vfb"):
        kind = gathering.settings.get(f"{root}/type", "vnc")
        if kind == "vnc" and gathering.settings.get(f"{root}/vnc", "1") != "0":
            gathering.part(Part.DISPLAY, "", root, _vnc(gathering, f"{root}/", (f"{root}/type",)))
    if gathering.settings.get("vnc", "0") not in {"", "0"}:
        gathering.part(Part.DISPLAY, "vnc", "vnc", _vnc(gathering, "", ("vnc",)))
    if gathering.settings.get("spice", "0") not in {"", "0"}:
        gathering.part(Part.DISPLAY, "spice", "spice", _spice(gathering))


def _vnc(gathering: Gathering, under: str, kind: tuple[str, ...]) -> Iterator[Fact | None]:
    """It listens at 127.0.0.1 if nothing else is said."""
    yield Fact(Field.KIND, "vnc", kind)
    yield gathering.text(Field.ADDRESS, f"{under}vnclisten") or Fact(Field.ADDRESS, "127.0.0.1")
    password = f"{under}vncpasswd"
    yield Fact(Field.PASSWORD, "set" if gathering.settings.get(password) else "none", (password,))


def _spice(gathering: Gathering) -> Iterator[Fact | None]:
    yield Fact(Field.KIND, "spice", ("spice",))
    yield gathering.text(Field.ADDRESS, "spicehost")
    secured = bool(gathering.settings.get("spicepasswd"))
    secured = secured and gathering.settings.get("spicedisable_ticketing", "0") == "0"
    paths = ("spicepasswd", "spicedisable_ticketing")
    yield Fact(Field.PASSWORD, "set" if secured else "none", paths)
