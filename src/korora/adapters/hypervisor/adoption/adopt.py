"""Take over a QEMU that somebody else started: its definition, read from itself, its process and its taps.

Promise: nothing about the VM changes. Hardware that cannot be made elsewhere does not hinder the adoption;
the definition says from then on why the VM does not move. Limit: without a memory backend file Korora cannot
wipe its memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from korora.adapters.hypervisor.adoption.hardware import portable
from korora.adapters.hypervisor.adoption.options import parse_options
from korora.adapters.hypervisor.machine import Ends, QemuMachine
from korora.adapters.hypervisor.network import bridge_of
from korora.adapters.hypervisor.process import Process, boot_id, start_ticks
from korora.adapters.hypervisor.qmp import Qmp
from korora.adapters.hypervisor.snapshot import graph
from korora.errors import KororaError, RefusedError, ToolError, UsageError
from korora.model.definition import IMMOVABLE_MAX_CHARS, definition_text, parse_definition
from korora.model.identity import VmName
from korora.model.vm import Boot, Disk, Nic, VmDefinition

CONNECT_DEADLINE_S = 10.0
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")
_NO_UUID = "00000000-0000-0000-0000-000000000000"


async def adopt(qmp_socket: Path) -> QemuMachine:
    """ToolError(kind="qmp-unreachable") when nothing answers there; RefusedError for what is no such VM."""
    if not qmp_socket.exists():
        raise UsageError(
            f"there is no socket {qmp_socket}",
            kind="no-socket",
            remedy="give the path of QEMU's -qmp unix:PATH,server=on,wait=off",
        )
    qmp = await Qmp.connect(qmp_socket, CONNECT_DEADLINE_S)
    try:
        definition = await observed(qmp)
        process = Process(qmp.peer_pid)
    except BaseException:
        await qmp.close()
        raise
    with contextlib.suppress(ToolError):  # the next snapshot tries again, and says why not
        await graph.clear(qmp)
    return QemuMachine(definition, Ends(process, qmp, None))


async def observed(qmp: Qmp) -> VmDefinition:
    """The VM as QEMU itself describes it. It reads back from its TOML, like any other definition."""
    arguments = _command_line(qmp.peer_pid)
    disks = await _disks(qmp)
    written = (await qmp.execute("query-uuid"))["UUID"]
    name = VmName(_NOT_IN_NAMES.sub("-", (await qmp.execute("query-name")).get("name", ""))[:63].strip("-._"))
    machine = await _machine_property(qmp, "type")
    definition = VmDefinition(
        name=name or VmName(f"qemu-{qmp.peer_pid}"),
        uuid=_derived_uuid(qmp.peer_pid) if written == _NO_UUID else written,
        memory_bytes=(await qmp.execute("query-memory-size-summary"))["base-memory"],
        cpus=len(await qmp.execute("query-cpus-fast")),
        cpu_model=await _cpu_model(qmp, arguments),
        machine=machine.removesuffix("-machine"),
        accelerator="kvm" if (await qmp.execute("query-kvm"))["enabled"] else "tcg",
        boot=Boot(
            kernel=await _machine_property(qmp, "kernel") or None,
            initrd=await _machine_property(qmp, "initrd") or None,
            command_line=await _machine_property(qmp, "append"),
        ),
        vtpm=bool(await qmp.execute("query-tpm")),
        disks=disks,
        nics=await _nics(qmp, arguments),
        adopted=True,
    )
    return _checked(_with_hardware(definition, arguments, await _backed(qmp)))


def _with_hardware(definition: VmDefinition, arguments: list[str], backed: list[str]) -> VmDefinition:
    """Or with the reason why it has none that can move: it can be adopted all the same."""
    if backed:
        return replace(definition, immovable=_printable(f"its disk {backed[0]} has another file behind it"))
    formats = {disk.path: disk.format for disk in definition.disks}
    try:
        return replace(definition, hardware=portable(arguments, formats))
    except RefusedError as refused:
        return replace(definition, immovable=_printable(refused.message))


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:IMMOVABLE_MAX_CHARS]


def _checked(definition: VmDefinition) -> VmDefinition:
    try:
        return parse_definition(definition_text(definition), f"the QEMU of {definition.name}")
    except KororaError as error:
        raise RefusedError(
            f"this QEMU cannot be described as one of Korora's VMs: {error.message}",
            kind="not-adoptable",
            remedy="start it in another way (absolute paths, raw or qcow2 disks), then adopt it",
        ) from error


def _derived_uuid(pid: int) -> str:
    """For a VM that has none: the same whenever this very process is asked."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{boot_id()} {pid} {start_ticks(pid)}"))


def _command_line(pid: int) -> list[str]:
    """The arguments it was started with, less the program's name (proc(5), cmdline)."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError as error:
        raise ToolError(f"process {pid} is gone", kind="vm-process-gone") from error
    return [word.decode(errors="replace") for word in words[1:]]


async def _machine_property(qmp: Qmp, name: str) -> str:
    try:
        return str(await qmp.execute("qom-get", {"path": "/machine", "property": name}))
    except ToolError as error:
        if error.kind == "qmp-refused":
            return ""
        raise


async def _cpu_model(qmp: Qmp, arguments: list[str]) -> str:
    """With the features asked for on the command line, where its model is the one that runs."""
    path = (await qmp.execute("query-cpus-fast"))[0]["qom-path"]
    kind = str(await qmp.execute("qom-get", {"path": path, "property": "type"}))
    model = kind.removesuffix("-cpu").removesuffix("-x86_64").removesuffix("-i386")
    written = _last(arguments, "-cpu")
    return written if written is not None and written.partition(",")[0] == model else model


async def _disks(qmp: Qmp) -> tuple[Disk, ...]:
    """Every medium but the firmware's flash chips."""
    disks: list[Disk] = []
    for block in await qmp.execute("query-block"):
        medium = block.get("inserted")
        if medium is None or str(block.get("device", "")).startswith("pflash"):
            continue
        image: dict[str, Any] = medium["image"]
        disks.append(Disk(path=image["filename"], format=image["format"], name=f"disk{len(disks)}"))
    return tuple(disks)


async def _backed(qmp: Qmp) -> list[str]:
    """The images that have a backing file, which the storage rule of another host would not see."""
    images = [block.get("inserted", {}).get("image", {}) for block in await qmp.execute("query-block")]
    return [image["filename"] for image in images if "backing-filename" in image]


async def _nics(qmp: Qmp, arguments: list[str]) -> tuple[Nic, ...]:
    """Its cards on taps, in the order of the arguments, which is that of the descriptors."""
    backends = [parse_options(value, "type") for value in _all(arguments, "-netdev")]
    names = [found.get("id") for found in backends if found.kind in {"tap", "bridge"}]
    macs = await _macs(qmp)
    taps = await asyncio.to_thread(_taps, qmp.peer_pid)
    cards = zip(names, taps, strict=False)
    return tuple(Nic(bridge, macs[name]) for name, bridge in cards if bridge and name in macs)


async def _macs(qmp: Qmp) -> dict[str | None, str]:
    """Network backend → its card's MAC address."""
    found: dict[str | None, str] = {}
    for folder in ("/machine/peripheral", "/machine/peripheral-anon"):
        for child in await qmp.execute("qom-list", {"path": folder}):
            path = f"{folder}/{child['name']}"
            with contextlib.suppress(ToolError):
                backend = await qmp.execute("qom-get", {"path": path, "property": "netdev"})
                mac = await qmp.execute("qom-get", {"path": path, "property": "mac"})
                found[backend] = str(mac).lower()
    return found


def _taps(pid: int) -> list[str | None]:
    """The bridge of each tap that the process holds, by ascending descriptor; None where it has none."""
    bridges: list[str | None] = []
    with contextlib.suppress(OSError):
        for entry in sorted(Path(f"/proc/{pid}/fdinfo").iterdir(), key=lambda path: int(path.name)):
            name = re.search(r"^iff:\s*(\S+)", entry.read_text(), re.MULTILINE)
            if name:
                bridges.append(bridge_of(name[1]))
    return bridges


def _all(arguments: list[str], option: str) -> list[str]:
    return [value for word, value in pairwise(arguments) if word.lstrip("-") == option[1:]]


def _last(arguments: list[str], option: str) -> str | None:
    return next(iter(reversed(_all(arguments, option))), None)
