"""What this QEMU and swtpm can do, asked of QEMU itself with no machine, and remembered."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import msgspec

from korora.adapters.hypervisor import live_cpu
from korora.adapters.hypervisor.probe.cache import Cache, fingerprint
from korora.adapters.hypervisor.probe.scratch import scratch_qemu
from korora.adapters.hypervisor.qmp import Qmp
from korora.errors import RefusedError, ToolError
from korora.model.vm import VmDefinition

FIRMWARE_FOLDERS = (Path("/usr/share/OVMF"), Path("/usr/share/edk2/x64"), Path("/usr/share/qemu"))
_VERSION = re.compile(r"version (\d+\.\d+(?:\.\d+)?)")
_PROBE_MEMORY = "32M"


class QemuFacts(msgspec.Struct, frozen=True):
    """`aliases` maps a machine's short name to the versioned type that it stands for in this QEMU."""

    version: str
    machines: tuple[str, ...]
    aliases: dict[str, str]
    cpu_models: tuple[str, ...]
    unsafe_cpu_models: tuple[str, ...]  # "host", "max": what they mean differs from host to host
    capabilities: tuple[str, ...]


async def qemu_facts(binary: str, cache: Cache) -> QemuFacts:
    key = fingerprint(binary)
    known = cache.read("facts", key)
    if known is not None:
        try:
            return msgspec.json.decode(known, type=QemuFacts)
        except msgspec.MsgspecError:
            pass  # written by another version of Korora: ask again
    async with scratch_qemu(binary, ["-M", "none", "-accel", "tcg"]) as qmp:
        facts = await _asked(qmp)
    cache.write("facts", key, msgspec.json.encode(facts))
    return facts


async def _asked(qmp: Qmp) -> QemuFacts:
    version = (await qmp.execute("query-version"))["qemu"]
    machines = await qmp.execute("query-machines")
    models = await qmp.execute("query-cpu-definitions")
    capabilities = await qmp.execute("query-migrate-capabilities")
    return QemuFacts(
        version=f"{version['major']}.{version['minor']}.{version['micro']}",
        machines=tuple(sorted(machine["name"] for machine in machines)),
        aliases={machine["alias"]: machine["name"] for machine in machines if "alias" in machine},
        cpu_models=tuple(sorted(model["name"] for model in models)),
        unsafe_cpu_models=tuple(sorted(model["name"] for model in models if not _is_safe(model))),
        capabilities=tuple(sorted(entry["capability"] for entry in capabilities)),
    )


def _is_safe(model: dict[str, Any]) -> bool:
    return bool(model.get("migration-safe", False))


async def cpu_features(binary: str, cache: Cache, definition: VmDefinition) -> dict[str, bool]:
    """What a guest of this CPU model, machine and accelerator would see here: one is made, and never runs.

    RefusedError(kind="cpu-model") when this QEMU has no such model or machine.
    """
    asked = f"{definition.machine} {definition.accelerator} {definition.cpu_model}"
    key = f"{fingerprint(binary)} {asked}"
    known = cache.read("cpu", key)
    if known is not None:
        return msgspec.json.decode(known, type=dict[str, bool])
    args = ["-machine", definition.machine, "-accel", definition.accelerator]
    try:
        async with scratch_qemu(binary, [*args, "-cpu", definition.cpu_model, "-m", _PROBE_MEMORY]) as qmp:
            features = await live_cpu.features(qmp)
    except ToolError as error:
        raise RefusedError(
            f"no guest can be made here with machine and CPU {asked}: {error.message}",
            kind="cpu-model",
            remedy="choose a CPU model and machine type that this host's QEMU knows",
        ) from error
    cache.write("cpu", key, msgspec.json.encode(features))
    return features


async def swtpm_version(program: str, cache: Cache) -> str:
    """Such as "0.7.1"; empty where swtpm is not installed or does not answer, which is asked again."""
    key = fingerprint(program)
    known = cache.read("swtpm", key)
    if known is None:
        known = (await _told_swtpm_version(program)).encode()
        if known:
            cache.write("swtpm", key, known)
    return known.decode(errors="replace")


async def _told_swtpm_version(program: str) -> str:
    try:
        child = await asyncio.create_subprocess_exec(
            program, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        output, _ = await asyncio.wait_for(child.communicate(), 10)
    except (OSError, TimeoutError):
        return ""
    match = _VERSION.search(output.decode(errors="replace"))
    return match[1] if match else ""


def firmware_images(folders: tuple[Path, ...] = FIRMWARE_FOLDERS) -> tuple[str, ...]:
    """The UEFI images and variable stores under the usual folders, by path."""
    return tuple(
        sorted(str(path) for folder in folders for path in folder.glob("OVMF*.fd") if path.is_file())
    )
