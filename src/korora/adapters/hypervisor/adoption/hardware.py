"""From the command line of somebody else's QEMU, the arguments that make the same hardware on another host.

Pure, and closed: an argument that is not known here to be portable is refused by name, so that no move starts
which cannot end. What belongs to the host (sockets, taps, files of output) becomes a slot or a null device.
The result is screened again where it arrives: screening what was screened changes nothing. Limit: hardware
plugged in after the start is not on the command line; QEMU then refuses the stream, and the VM stays.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from korora.adapters.hypervisor.adoption.options import parse_options
from korora.errors import RefusedError
from korora.ports.hypervisor import HardwareFiles

VTPM_SLOT = "@vtpm@"
TAP_SLOT = "@tap@"
DEFAULT_RAM = "pc.ram"  # what a q35 or i440fx machine calls its memory by itself


@dataclass(frozen=True, slots=True)
class Known:
    """What else is known of the VM: the drives' formats by path, and which chardevs lead to a vTPM."""

    formats: Mapping[str, str]
    vtpm_chardevs: frozenset[str]


Screen = Callable[[str, Known], Iterator[str]]

_FLAGS = frozenset({"-nodefaults", "-no-reboot", "-no-shutdown", "-no-hpet", "-no-acpi", "-usb"})
_HOST_FLAGS = frozenset({"-S", "-daemonize", "-enable-kvm", "-no-user-config", "-nographic", "-s"})
_HOST = frozenset(
    {
        "-qmp",
        "-qmp-pretty",
        "-mon",
        "-monitor",
        "-pidfile",
        "-incoming",
        "-D",
        "-d",
        "-trace",
        "-sandbox",
        "-name",
    }
    | {"-runas", "-chroot", "-vnc", "-display", "-gdb", "-spice", "-accel", "-m", "-msg", "-L"}
)
_PLAIN = frozenset({"-smp", "-cpu", "-rtc", "-global", "-boot", "-vga", "-uuid", "-watchdog-action"})
_FILE_KEYS = frozenset(
    {"romfile", "filename", "file", "path", "mem-path", "firmware", "kernel", "initrd", "dtb", "dumpdtb"}
    | {"splash", "evdev", "host", "hostdev", "script", "downscript", "fd", "vhostfd"}
)
"""Settings of devices and machines that open something of the host's."""
_RANDOM_SOURCES = frozenset({"/dev/urandom", "/dev/random", "/dev/hwrng"})
_FILES = frozenset({"-kernel", "-initrd", "-bios"})
_CONSOLES = frozenset({"-serial", "-parallel", "-debugcon"})
_DEVICES = (
    *(
        "virtio-blk",
        "virtio-net",
        "virtio-serial",
        "virtserialport",
        "virtconsole",
        "virtio-rng",
        "virtio-scsi",
    ),
    *(
        "virtio-balloon",
        "virtio-gpu",
        "virtio-vga",
        "virtio-keyboard",
        "virtio-mouse",
        "virtio-tablet",
        "scsi-",
    ),
    *(
        "tpm-tis",
        "tpm-crb",
        "pcie-root-port",
        "pcie-pci-bridge",
        "pci-bridge",
        "ide-",
        "ahci",
        "e1000",
        "rtl8139",
    ),
    *("qemu-xhci", "nec-usb-xhci", "usb-tablet", "usb-kbd", "usb-mouse", "VGA", "isa-serial", "isa-debug"),
    *("pvpanic", "i6300esb", "vmgenid", "vmcoreinfo"),
)
_DRIVE_KEYS = frozenset(
    {"file", "if", "format", "id", "index", "bus", "unit", "media", "readonly", "cache", "aio", "discard"}
    | {"detect-zeroes", "werror", "rerror", "serial"}
)
_NODE_KEYS = frozenset(
    {"driver", "node-name", "filename", "file", "read-only", "discard", "cache", "aio", "locking"}
)
_OBJECT_KEYS = {
    "rng-random": frozenset({"id", "filename"}),
    "rng-builtin": frozenset({"id"}),
    "iothread": frozenset({"id", "poll-max-ns", "poll-grow", "poll-shrink", "aio-max-batch"}),
}
_NODE_DRIVERS = frozenset({"raw", "qcow2", "file", "host_device"})


def portable(arguments: Sequence[str], formats: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The arguments (without the program's name), screened. RefusedError names all that cannot be moved."""
    known = Known(formats or {}, _vtpm_chardevs(arguments))
    kept: list[str] = []
    refused: list[str] = []
    for option, value in _pairs(arguments):
        try:
            kept.extend(_screened(option, value, known))
        except (ValueError, AttributeError) as error:
            refused.append(f"{option} {value or ''}".strip()[:120] + f" ({error})")
    if refused:
        raise RefusedError(
            "this VM's hardware cannot be made on another host: " + "; ".join(refused[:8]),
            kind="adopted-hardware",
            remedy="start the VM without it, or define it for Korora: korora vm start --help",
        )
    return tuple(kept)


def files_of(arguments: Sequence[str]) -> HardwareFiles:
    """Every file of the host that a QEMU with these screened arguments opens."""
    named = list(_files_of(arguments))
    return HardwareFiles(
        read=tuple(path for path, writable in named if not writable),
        written=tuple(path for path, writable in named if writable),
    )


def _files_of(arguments: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Each with whether the VM can write it."""
    for option, value in _pairs(arguments):
        if option in _FILES and value:
            yield value, False
        elif option == "-drive":
            drive = parse_options(value or "", "")
            yield from ((path, drive.get("readonly") != "on") for path in [drive.get("file")] if path)
        elif option == "-blockdev":
            yield from _files_of_node(json.loads(value or "{}"), writable=True)


def _files_of_node(node: object, *, writable: bool) -> Iterator[tuple[str, bool]]:
    """What a node says of writing holds for the nodes that are written into it."""
    if isinstance(node, dict):
        writable = writable and node.get("read-only") is not True
        if "filename" in node:
            yield str(node["filename"]), writable
        yield from _files_of_node(node.get("file"), writable=writable)


def ram_name(arguments: Sequence[str]) -> str:
    """What QEMU calls the guest's memory in its stream."""
    for option, value in _pairs(arguments):
        if option in {"-machine", "-M"}:
            name = parse_options(value or "", "type").get("memory-backend")
            if name:
                return name
    return DEFAULT_RAM


def _pairs(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    rest = iter(arguments)
    for word in rest:
        option = word[1:] if word.startswith("--") else word
        yield option, None if option in _FLAGS or option in _HOST_FLAGS else next(rest, "")


def _screened(option: str, value: str | None, known: Known) -> Iterator[str]:
    """What is kept of one argument; ValueError says why nothing can be."""
    if option in _HOST_FLAGS or option in _HOST:
        return
    if value is None or option == "-append":
        yield from (option,) if value is None else (option, value)
    elif option in _PLAIN:
        _refuse_files(parse_options(value, "").values)
        yield from (option, value)
    elif option in _FILES:
        yield from (option, _absolute(value))
    elif option in _CONSOLES:
        yield from (option, value if value == "none" or value.startswith("chardev:") else "null")
    elif option in _SCREENS:
        yield from _SCREENS[option](value, known)
    else:
        raise ValueError("not known to be portable")


def _machine(value: str, _: Known) -> Iterator[str]:
    """Its settings only: type, accelerator and memory are pinned in the definition."""
    settings = replace(parse_options(value, "type").without("accel"), kind="")
    _refuse_files(settings.values)
    yield from ("-machine", str(settings))


def _object(value: str, _: Known) -> Iterator[str]:
    found = parse_options(value, "qom-type")
    if found.kind.startswith("memory-backend-"):
        return  # made anew, as a file that can be proved clean and wiped
    if found.kind not in _OBJECT_KEYS:
        raise ValueError(f"object {found.kind}")
    unknown = set(found.values) - _OBJECT_KEYS[found.kind]
    if unknown or found.values.get("filename", "/dev/urandom") not in _RANDOM_SOURCES:
        raise ValueError(f"no {', '.join(sorted(unknown)) or 'other source of random numbers'}")
    yield from ("-object", value)


def _chardev(value: str, known: Known) -> Iterator[str]:
    """Who listened at the other end is not there on another host; the vTPM's socket gets a slot."""
    name = parse_options(value, "backend").get("id")
    if not name:
        raise ValueError("it has no id")
    target = f"socket,id={name},path={VTPM_SLOT}" if name in known.vtpm_chardevs else f"null,id={name}"
    yield from ("-chardev", target)


def _vtpm_chardevs(arguments: Sequence[str]) -> frozenset[str]:
    tpms = (parse_options(value or "", "type") for option, value in _pairs(arguments) if option == "-tpmdev")
    return frozenset(name for tpm in tpms if (name := tpm.get("chardev")))


def _tpmdev(value: str, _: Known) -> Iterator[str]:
    found = parse_options(value, "type")
    if found.kind != "emulator":
        raise ValueError("a TPM of the host stays there")
    yield from ("-tpmdev", str(found))


def _device(value: str, _: Known) -> Iterator[str]:
    if value.startswith("{"):
        settings = json.loads(value)
        driver = settings.pop("driver", "")
    else:
        found = parse_options(value)
        driver, settings = found.kind, found.values
    if not str(driver).startswith(_DEVICES):
        raise ValueError(f"device {driver}")
    _refuse_files(settings)
    yield from ("-device", value)


def _netdev(value: str, _: Known) -> Iterator[str]:
    found = parse_options(value, "type")
    name = found.get("id")
    if found.kind in {"tap", "bridge"} and name:
        yield from ("-netdev", f"tap,id={name},fd={TAP_SLOT},vhost=off")
    elif found.kind == "user" and name:
        yield from ("-netdev", f"user,id={name}")
    else:
        raise ValueError("only tap, bridge and user networks can be made elsewhere")


def _nic(value: str, _: Known) -> Iterator[str]:
    if value != "none":
        raise ValueError("write it as -netdev and -device")
    yield from ("-nic", value)


def _drive(value: str, known: Known) -> Iterator[str]:
    found = parse_options(value, "")
    unknown = set(found.values) - _DRIVE_KEYS
    file = found.get("file")
    if unknown or found.kind or file is None:
        raise ValueError(f"only plain files, and no {', '.join(sorted(unknown)) or 'short form'}")
    if found.get("if") == "pflash" and found.get("readonly") != "on":
        raise ValueError("its variable store is not in Korora's hands")
    if found.get("format") is None:
        if file not in known.formats:
            raise ValueError("its format is not known")
        found = found.with_("format", known.formats[file])
    yield from ("-drive", str(found.with_("file", _absolute(file))))


def _blockdev(value: str, _: Known) -> Iterator[str]:
    if not value.startswith("{"):
        raise ValueError("only as JSON")
    node = json.loads(value)
    _check_node(node)
    yield from ("-blockdev", json.dumps(node))


def _check_node(node: object) -> None:
    if not isinstance(node, dict) or node.get("driver") not in _NODE_DRIVERS:
        raise ValueError("only raw and qcow2 files")
    extra = set(node) - _NODE_KEYS - {"backing"}
    if extra or node.get("backing") is not None:
        raise ValueError(f"no {', '.join(sorted(extra)) or 'backing file'}")
    if "filename" in node:
        _absolute(str(node["filename"]))
    if "file" in node and not isinstance(node["file"], str):
        _check_node(node["file"])


def _fw_cfg(value: str, _: Known) -> Iterator[str]:
    if parse_options(value, "name").get("string") is None:
        raise ValueError("only with string=")
    yield from ("-fw_cfg", value)


def _smbios(value: str, _: Known) -> Iterator[str]:
    if parse_options(value, "type").values.keys() & {"file", "path"}:
        raise ValueError("no file= and no path=")
    yield from ("-smbios", value)


def _refuse_files(settings: Mapping[str, object]) -> None:
    """Hardware is made of numbers, words and names of other parts. What opens a file has its own argument."""
    for key, value in settings.items():
        named = {key.rpartition(".")[2], value if key == "property" else ""}  # as -global spells it
        if named & _FILE_KEYS or "/" in str(value):
            raise ValueError(f"{key} names a file of the host")


def _absolute(path: str) -> str:
    if not path.startswith("/") or ".." in path.split("/"):
        raise ValueError("its path is not absolute")
    return path


_SCREENS: dict[str, Screen] = {
    "-machine": _machine,
    "-M": _machine,
    "-object": _object,
    "-chardev": _chardev,
    "-tpmdev": _tpmdev,
    "-device": _device,
    "-netdev": _netdev,
    "-nic": _nic,
    "-net": _nic,
    "-drive": _drive,
    "-blockdev": _blockdev,
    "-fw_cfg": _fw_cfg,
    "-smbios": _smbios,
}
