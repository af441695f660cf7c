"""Which files of the host a QEMU with these screened arguments opens (see `hardware`). Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from korora.adapters.hypervisor.adoption.options import arguments_of, parse_options
from korora.model.vm import Disk
from korora.ports.hypervisor import HardwareFiles

FILES = frozenset({"-kernel", "-initrd", "-bios"})


def files_of(arguments: Sequence[str]) -> HardwareFiles:
    """All of them."""
    named = list(_files_of(arguments))
    return HardwareFiles(
        read=tuple(path for path, writable in named if not writable),
        written=tuple(path for path, writable in named if writable),
    )


def images_of(arguments: Sequence[str]) -> tuple[Disk, ...]:
    """Its disk images with their formats. Nodes can name each other: if one is qcow2, all may be."""
    found: list[Disk] = []
    nodes = []
    for option, value in arguments_of(arguments):
        if option == "-drive":
            drive = parse_options(value or "", "")
            found.append(Disk(drive.get("file") or "", drive.get("format") or "raw"))
        elif option == "-blockdev":
            nodes.append(json.loads(value or "{}"))
    form = "qcow2" if any(map(_is_qcow2, nodes)) else "raw"
    paths = (path for node in nodes for path, _ in _files_of_node(node, writable=True))
    return (*found, *(Disk(path, form) for path in paths))


def _is_qcow2(node: object) -> bool:
    return isinstance(node, dict) and (node.get("driver") == "qcow2" or _is_qcow2(node.get("file")))


def _files_of(arguments: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Each with whether the VM can write it."""
    for option, value in arguments_of(arguments):
        if option in FILES and value:
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
