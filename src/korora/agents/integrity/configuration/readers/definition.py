"""Korora's own definition of a VM: read by the parser that decides, with every default written out.

What that parser refuses is told, and the settings stay as they are written. Source: `model/definition.py`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

from korora.agents.integrity.configuration.readers.reading import Gathering, escaped
from korora.errors import UsageError
from korora.model.definition import definition_text, parse_definition
from korora.model.strict_toml import TEXT_MAX_BYTES, has_endless_key
from korora.model.vm_settings import ConfigurationFormat, Fact, Field, Part, VmConfiguration

_KEY = re.compile(r"`([^`]{1,200})`")


def read(text: str) -> VmConfiguration:
    gathering = Gathering(ConfigurationFormat.KORORA)
    try:
        canonical = definition_text(parse_definition(text, "it"))
    except UsageError as error:
        _flatten(gathering, "", tables(text))
        key = _KEY.search(error.message)
        place = key[1] if key else "the whole file"
        gathering.bad(place, gathering.settings.get(place, ""), error.message.removeprefix("it: "))
    else:
        _flatten(gathering, "", tomllib.loads(canonical))
        gathering.part(Part.VM, "", "", _vm(gathering))
        _devices(gathering)
    return gathering.done()


def tables(text: str) -> dict[str, object]:
    """What stands in it as TOML; nothing, if it is none, or longer than a definition may be."""
    if len(text) > TEXT_MAX_BYTES or has_endless_key(text):
        return {}
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        return {}


def _flatten(gathering: Gathering, path: str, value: object) -> None:
    match value:
        case dict():
            for key, item in value.items():
                _flatten(gathering, f"{path}.{escaped(key)}" if path else escaped(key), item)
        case list():
            if not value:
                gathering.put(f"{path}[]", "")
            for index, item in enumerate(value):
                _flatten(gathering, f"{path}[{index}]", item)
        case bool():
            gathering.put(path, "on" if value else "off")
        case _:
            gathering.put(path, str(value))


def _vm(gathering: Gathering) -> Iterator[Fact | None]:
    yield gathering.text(Field.NAME, "name")
    yield gathering.text(Field.UUID, "uuid")
    yield gathering.text(Field.MEMORY, "memory")
    yield gathering.text(Field.CPUS, "cpus")
    yield gathering.text(Field.CPU_MODEL, "cpu")
    yield gathering.text(Field.MACHINE, "machine")
    yield gathering.text(Field.FIRMWARE, "firmware.kind")
    yield gathering.text(Field.FIRMWARE_IMAGE, "firmware.code")
    yield gathering.text(Field.SECURE_BOOT, "firmware.secure_boot")
    yield gathering.text(Field.TPM, "vtpm.enabled")
    yield gathering.text(Field.KERNEL, "boot.kernel")
    yield gathering.text(Field.INITRD, "boot.initrd")
    yield gathering.text(Field.COMMAND_LINE, "boot.command_line")
    arguments = tuple(path for path in gathering.settings if path.startswith("hardware["))
    yield gathering.joined(Field.ARGUMENTS, *arguments)


def _devices(gathering: Gathering) -> None:
    for part, name, first in ((Part.DISK, "disks", "name"), (Part.NIC, "networks", "mac")):
        for path in list(gathering.settings):
            if path.startswith(f"{name}[") and path.endswith(f"].{first}"):
                root = path.rpartition(".")[0]
                facts = _disk(gathering, root) if part is Part.DISK else _adapter(gathering, root)
                gathering.part(part, gathering.settings[path], root, facts)


def _disk(gathering: Gathering, root: str) -> Iterator[Fact | None]:
    yield Fact(Field.KIND, "disk")
    yield gathering.text(Field.PATH, f"{root}.path")
    yield gathering.text(Field.FORMAT, f"{root}.format")
    yield Fact(Field.BUS, "virtio")
    yield Fact(Field.READ_ONLY, "no")


def _adapter(gathering: Gathering, root: str) -> Iterator[Fact | None]:
    yield Fact(Field.KIND, "bridged")
    yield gathering.text(Field.NETWORK, f"{root}.bridge")
    yield gathering.mac(f"{root}.mac")
    yield Fact(Field.MODEL, "virtio")
