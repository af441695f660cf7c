"""What a file is, by its content and never by its name; and the reader for it.

Promise: what is declared holds. Between two formats that both fit, nothing is guessed. Only a UsageError is
raised, whatever the bytes are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, assert_never

from korora.agents.integrity.configuration.readers import definition, libvirt, ovf, virtualbox, vmware, xen
from korora.agents.integrity.configuration.readers.reading import MAX_BYTES, unreadable
from korora.agents.integrity.configuration.readers.tree import Document, read_document
from korora.agents.integrity.configuration.readers.xl_grammar import Assignment, Atom, statements
from korora.errors import UsageError
from korora.model.vm_settings import ConfigurationFormat, VmConfiguration

_ROOTS: Final = {
    "domain": ConfigurationFormat.LIBVIRT,
    "VirtualBox": ConfigurationFormat.VIRTUALBOX,
    "Envelope": ConfigurationFormat.OVF,
}
_XML: Final[dict[ConfigurationFormat, Callable[[Document], VmConfiguration]]] = {
    ConfigurationFormat.LIBVIRT: libvirt.read,
    ConfigurationFormat.VIRTUALBOX: virtualbox.read,
    ConfigurationFormat.OVF: ovf.read,
}
_VMX: Final = re.compile(
    rb"^[ \t]*(?:\.encoding|config\.version|virtualhw\.(?:version|productcompatibility))[ \t]*=",
    re.MULTILINE | re.IGNORECASE,
)
_TABLE: Final = re.compile(
    r"^[ \t]*\[{1,2}[ \t]*(?:firmware|boot|vtpm|disks|networks)[ \t]*\]{1,2}[ \t\r]*(?:#.*)?$", re.MULTILINE
)
_XL_ALONE: Final = frozenset({
    "type", "builder", "vcpus", "maxvcpus", "maxmem", "kernel", "ramdisk", "disk", "vif", "vfb", "bootloader",
    "cmdline", "extra", "root", "on_poweroff", "on_reboot", "on_crash", "pci", "vnc", "sdl", "spice",
    "serial", "bios", "acpi",
})  # fmt: skip


def read(data: bytes, declared: ConfigurationFormat | None = None) -> VmConfiguration:
    """UsageError: "bad-configuration" if it is of no format, "format-unclear" if it may be of two."""
    if len(data) > MAX_BYTES:
        raise unreadable(f"it is longer than {MAX_BYTES >> 20} MiB")
    document = _document(data, declared)
    format = _recognised(data, document) if declared is None else declared  # noqa: A001
    configuration = _read(data, document, format)
    if not configuration.settings and not configuration.unparsed:
        raise unreadable("there is no setting in it")
    return configuration


def _read(data: bytes, document: Document | None, format: ConfigurationFormat) -> VmConfiguration:  # noqa: A002
    match format:
        case ConfigurationFormat.LIBVIRT | ConfigurationFormat.VIRTUALBOX | ConfigurationFormat.OVF:
            if document is None or _ROOTS.get(document.root.name) is not format:
                raise unreadable(f"its first element is none of {format.value}'s")
            return _XML[format](document)
        case ConfigurationFormat.VMWARE:
            return vmware.read(data)
        case ConfigurationFormat.XEN:
            return xen.read(_text(data))
        case ConfigurationFormat.KORORA:
            return definition.read(_text(data))
        case _:
            assert_never(format)


def _document(data: bytes, declared: ConfigurationFormat | None) -> Document | None:
    """If it is XML, or was said to be."""
    if declared in _XML or (declared is None and _looks_like_xml(data)):
        return read_document(data)
    return None


def _looks_like_xml(data: bytes) -> bool:
    begin = data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip()
    return begin.startswith((b"<", b"\xff\xfe<\x00", b"\xfe\xff\x00<"))


def _recognised(data: bytes, document: Document | None) -> ConfigurationFormat:
    if document is not None:
        found = _ROOTS.get(document.root.name)
        if found is None:
            raise unreadable(f"{document.root.name[:80]!r} is no VM's configuration")
        return found
    if _VMX.search(data):
        return ConfigurationFormat.VMWARE
    text = data.decode("utf-8", "replace")
    own, xl = _is_definition(text), _is_xl(text)
    if own and xl:
        raise UsageError(
            "it may be a Xen configuration, and one of Korora's own",
            kind="format-unclear",
            remedy="say which: --format xen or --format korora",
        )
    if own:
        return ConfigurationFormat.KORORA
    if xl:
        return ConfigurationFormat.XEN
    raise unreadable("it is none of " + ", ".join(ConfigurationFormat))


def _is_definition(text: str) -> bool:
    """By a table that only Korora's has, or as TOML with a name and its words for CPUs and memory."""
    if _TABLE.search(text):
        return True
    said = definition.tables(text)
    return "name" in said and "memory" in said and not _XL_ALONE & said.keys()


def _is_xl(text: str) -> bool:
    """By words that only xl has, or by a name and a plain number of megabytes."""
    if _TABLE.search(text):
        return False
    said = {one.name: one.value for one in statements(text) if isinstance(one, Assignment)}
    if _XL_ALONE & said.keys():
        return True
    memory = said.get("memory")
    return "name" in said and memory is not None and isinstance(memory, Atom) and memory.number


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise unreadable(f"it is not in UTF-8: {error}"[:200]) from error
