"""The CPU that a live QEMU shows to its guest, feature by feature, read from its object model.

Not from `query-cpu-model-expansion`: that tells what the model's name stands for, also where the accelerator
then silently withholds a feature.
"""

from __future__ import annotations

import asyncio
import json

from korora.adapters.hypervisor.qmp import Qmp
from korora.errors import ToolError

# Properties of QEMU's CPU object that are settings of QEMU, not something the guest sees.
_SETTINGS = frozenset(
    {
        "check",
        "enforce",
        "fill-mtrr-mask",
        "full-cpuid-auto-level",
        "host-cache-info",
        "host-phys-bits",
        "hotpluggable",
        "hotplugged",
        "l3-cache",
        "legacy-cache",
        "migratable",
        "realized",
        "start-powered-off",
        "tcg-cpuid",
        "vmware-cpuid-freq",
    }
)


_known: dict[tuple[str, str], dict[str, bool]] = {}


async def features_made_by(qmp: Qmp, recipe: str) -> dict[str, bool]:
    """As `features`, but asked property by property once only for each recipe and its CPUID words.

    `recipe` says all that decides the CPU beside this host: QEMU's binary, machine, accelerator and `-cpu`.
    Hundreds of questions become two: a move asks while its user waits.
    """
    words = await _cpuid_words(qmp)
    if words is None:
        return await features(qmp)
    if (recipe, words) not in _known:
        _known[recipe, words] = await features(qmp)
    return _known[recipe, words]


async def features(qmp: Qmp) -> dict[str, bool]:
    """Feature name → whether the first CPU has it. All CPUs of one VM are alike."""
    path = await _first_cpu(qmp)
    listed = await qmp.execute("qom-list", {"path": path})
    names = sorted(entry["name"] for entry in listed if _is_feature(entry["name"], entry["type"]))
    values = await asyncio.gather(
        *(qmp.execute("qom-get", {"path": path, "property": name}) for name in names)
    )
    return dict(zip(names, map(bool, values), strict=True))


async def _first_cpu(qmp: Qmp) -> str:
    cpus = await qmp.execute("query-cpus-fast")
    if not cpus:
        raise ToolError(
            "this QEMU has no CPU", kind="no-cpu", remedy="it was started with -M none; start a VM"
        )
    return str(cpus[0]["qom-path"])


async def _cpuid_words(qmp: Qmp) -> str | None:
    """The CPUID registers that the guest sees; None where the CPU has no such words."""
    path = await _first_cpu(qmp)
    try:
        words = await qmp.execute("qom-get", {"path": path, "property": "feature-words"})
    except ToolError as error:
        if error.kind != "qmp-refused":
            raise
        return None
    return json.dumps(words, sort_keys=True)


def _is_feature(name: str, kind: str) -> bool:
    return kind == "bool" and name not in _SETTINGS and not name.startswith("x-")
