"""From the command line of somebody else's QEMU, the arguments that make the same hardware on another host.

Pure, and closed: an argument, a setting or a value that is not known here to be portable is refused by name,
so that no move starts which cannot end, and no host opens a file because another one said so. What belongs to
the host (sockets, taps, files of output) becomes a slot or a null device. The result is screened again where
it arrives: screening what was screened changes nothing. Limit: hardware plugged in after the start is not on
the command line; QEMU then refuses the stream, and the VM stays.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from korora.adapters.hypervisor.adoption import shapes
from korora.adapters.hypervisor.adoption.files import FILES
from korora.adapters.hypervisor.adoption.options import (
    FLAGS,
    HOST_FLAGS,
    arguments_of,
    parse_options,
    settings_of,
)
from korora.adapters.hypervisor.adoption.shapes import check_shapes
from korora.errors import RefusedError

VTPM_SLOT = "@vtpm@"
TAP_SLOT = "@tap@"
DEFAULT_RAM = "pc.ram"  # what a q35 or i440fx machine calls its memory by itself


@dataclass(frozen=True, slots=True)
class Known:
    """What else is known of the VM: the drives' formats by path, and which chardevs lead to a vTPM."""

    formats: Mapping[str, str]
    vtpm_chardevs: frozenset[str]


Screen = Callable[[str, Known], Iterator[str]]

_HOST = frozenset(
    {"-qmp", "-qmp-pretty", "-mon", "-monitor", "-pidfile", "-incoming", "-D", "-d", "-trace", "-sandbox"}
    | {"-name", "-runas", "-chroot", "-vnc", "-display", "-gdb", "-spice", "-accel", "-m", "-msg", "-L"}
)
_CONSOLES = frozenset({"-serial", "-parallel", "-debugcon"})


def portable(arguments: Sequence[str], formats: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The arguments (without the program's name), screened. RefusedError names all that cannot be moved."""
    known = Known(formats or {}, _vtpm_chardevs(arguments))
    kept: list[str] = []
    refused: list[str] = []
    for option, value in arguments_of(arguments):
        try:
            kept.extend(_screened(option, value, known))
        except (ValueError, RecursionError) as error:  # the latter of JSON that is nested to do harm
            refused.append(f"{option} {value or ''}".strip()[:120] + f" ({error})")
    if refused:
        raise RefusedError(
            "this VM's hardware cannot be made on another host: " + "; ".join(refused[:8]),
            kind="adopted-hardware",
            remedy="start the VM without it, or define it for Korora: korora vm start --help",
        )
    return tuple(kept)


def ram_name(arguments: Sequence[str]) -> str:
    """What QEMU calls the guest's memory in its stream."""
    for option, value in arguments_of(arguments):
        if option in {"-machine", "-M"}:
            name = parse_options(value or "", "type").get("memory-backend")
            if name:
                return name
    return DEFAULT_RAM


def _screened(option: str, value: str | None, known: Known) -> Iterator[str]:
    """What is kept of one argument; ValueError says why nothing can be."""
    if option in HOST_FLAGS or option in _HOST:
        return
    if option in FLAGS:
        yield option
    elif option == "-append":
        yield from (option, value or "")
    elif option in shapes.PLAIN:
        yield from _plain(option, value or "")
    elif option in FILES:
        yield from (option, _file(option, value or ""))
    elif option in _SCREENS:
        yield from _SCREENS[option](value or "", known)
    elif option in _CONSOLES:
        yield from (option, _console(value or ""))
    else:
        raise ValueError("not known to be portable")


def _plain(option: str, value: str) -> Iterator[str]:
    check_shapes(settings_of(value), shapes.PLAIN[option])
    yield from (option, value)


def _cpu(value: str, _: Known) -> Iterator[str]:
    model, *features = value.split(",")  # one by one: no text makes the patterns search for long
    if not shapes.CPU_MODEL.fullmatch(model) or not all(map(shapes.CPU_FEATURE.fullmatch, features)):
        raise ValueError("a CPU is a model with features, each a switch or a number")
    yield from ("-cpu", value)


def _global(value: str, _: Known) -> Iterator[str]:
    """`driver.property=value`, or the three spelled out."""
    settings = dict(settings_of(value))
    if settings.keys() == {"driver", "property", "value"}:
        key, set_to = settings["property"], settings["value"]
    elif len(settings) == 1:
        name, set_to = settings.popitem()
        key = name.partition(".")[2]
    else:
        raise ValueError("only driver.property=value")
    check_shapes([(key, set_to)], shapes.GLOBAL)
    yield from ("-global", value)


def _machine(value: str, _: Known) -> Iterator[str]:
    """Its settings only: type, accelerator and memory are pinned in the definition."""
    settings = replace(parse_options(value, "type").without("accel"), kind="")
    check_shapes(settings.values.items(), shapes.MACHINE)
    yield from ("-machine", str(settings))


def _object(value: str, _: Known) -> Iterator[str]:
    found = parse_options(value, "qom-type")
    if found.kind.startswith("memory-backend-"):
        return  # made anew, as a file that can be proved clean and wiped
    if found.kind not in shapes.OBJECTS:
        raise ValueError(f"object {found.kind}")
    check_shapes(found.values.items(), shapes.OBJECTS[found.kind])
    yield from ("-object", str(found))


def _chardev(value: str, known: Known) -> Iterator[str]:
    """Who listened at the other end is not there on another host; the vTPM's socket gets a slot."""
    name = _name(parse_options(value, "backend").get("id"))
    target = f"socket,id={name},path={VTPM_SLOT}" if name in known.vtpm_chardevs else f"null,id={name}"
    yield from ("-chardev", target)


def _vtpm_chardevs(arguments: Sequence[str]) -> frozenset[str]:
    tpms = (
        parse_options(value or "", "type") for option, value in arguments_of(arguments) if option == "-tpmdev"
    )
    return frozenset(name for tpm in tpms if (name := tpm.get("chardev")))


def _tpmdev(value: str, _: Known) -> Iterator[str]:
    found = parse_options(value, "type")
    if found.kind != "emulator":
        raise ValueError("a TPM of the host stays there")
    check_shapes(found.values.items(), shapes.keys(shapes.NAME, "id chardev"))
    yield from ("-tpmdev", str(found))


def _device(value: str, _: Known) -> Iterator[str]:
    if value.startswith("{"):
        settings = _object_of(value)
        kept = json.dumps(settings, separators=(",", ":"))
        driver = shapes.as_text(settings.pop("driver", ""))
    else:
        found = parse_options(value)
        kept, driver, settings = str(found), found.kind, dict(found.values)
    if driver not in shapes.DEVICES:
        raise ValueError(f"device {driver}")
    check_shapes(settings.items(), shapes.DEVICE)
    yield from ("-device", kept)


def _netdev(value: str, _: Known) -> Iterator[str]:
    found = parse_options(value, "type")
    if found.kind in {"tap", "bridge"}:
        yield from ("-netdev", f"tap,id={_name(found.get('id'))},fd={TAP_SLOT},vhost=off")
    elif found.kind == "user":
        yield from ("-netdev", f"user,id={_name(found.get('id'))}")
    else:
        raise ValueError("only tap, bridge and user networks can be made elsewhere")


def _nic(value: str, _: Known) -> Iterator[str]:
    if value != "none":
        raise ValueError("write it as -netdev and -device")
    yield from ("-nic", value)


def _drive(value: str, known: Known) -> Iterator[str]:
    found = parse_options(value, "")
    file = found.get("file")
    if found.kind or file is None:
        raise ValueError("only plain files, and no short form")
    if found.get("if") == "pflash" and found.get("readonly") != "on":
        raise ValueError("its variable store is not in Korora's hands")
    if found.get("format") is None:
        if file not in known.formats:
            raise ValueError("its format is not known")
        found = found.with_("format", known.formats[file])
    check_shapes(found.without("file").values.items(), shapes.DRIVE)
    yield from ("-drive", str(found.with_("file", _absolute(file))))


def _blockdev(value: str, _: Known) -> Iterator[str]:
    if not value.startswith("{"):
        raise ValueError("only as JSON")
    node = _object_of(value)
    _check_node(node)
    yield from ("-blockdev", json.dumps(node, separators=(",", ":")))


def _check_node(node: dict[str, Any]) -> None:
    rest = dict(node)
    if rest.pop("backing", None) is not None:
        raise ValueError("no backing file")
    if "filename" in rest:
        _absolute(rest.pop("filename"))
    below, cache = rest.pop("file", None), rest.pop("cache", {})
    if isinstance(below, dict):
        _check_node(below)
    elif below is not None:
        _name(below)
    if not isinstance(cache, dict):
        raise ValueError("its cache is not made of settings")
    check_shapes(cache.items(), shapes.NODE_CACHE)
    check_shapes(rest.items(), shapes.NODE)


def _fw_cfg(value: str, _: Known) -> Iterator[str]:
    """QEMU takes an empty string for none, and then the file that is named beside it."""
    found = parse_options(value, "name")
    text = found.get("string")
    if not text or found.values.keys() != {"string"}:
        raise ValueError("only with string=, and a string that is not empty")
    yield from ("-fw_cfg", str(found))


def _smbios(value: str, _: Known) -> Iterator[str]:
    for setting in settings_of(value):  # a text of type 11 may come more than once
        check_shapes([setting], shapes.SMBIOS)
    yield from ("-smbios", value)


def _console(value: str) -> str:
    if value.startswith("chardev:"):
        return "chardev:" + _name(value.removeprefix("chardev:"))
    return value if value == "none" else "null"


def _object_of(text: str) -> dict[str, Any]:
    """A JSON object; ValueError for anything else, and where a key comes twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError("a setting is given twice")
        return made

    made = json.loads(text, object_pairs_hook=once)
    if not isinstance(made, dict):
        raise ValueError("only settings in braces")
    return made


def _name(name: object) -> str:
    if not isinstance(name, str) or not shapes.NAME.fullmatch(name):
        raise ValueError("it has no id, or one that is no name")
    return name


def _file(option: str, path: str) -> str:
    if option == "-initrd" and ("," in path or " " in path):
        raise ValueError("with a multiboot kernel it is a list of files")
    return _absolute(path)


def _absolute(path: object) -> str:
    if not isinstance(path, str) or not path.startswith("/") or ".." in path.split("/"):
        raise ValueError("its path is not absolute")
    if not path.isprintable():
        raise ValueError("its path cannot be printed")
    return path


_SCREENS: dict[str, Screen] = {
    "-cpu": _cpu,
    "-global": _global,
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
