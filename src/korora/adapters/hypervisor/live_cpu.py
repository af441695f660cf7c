"""The CPU that a live QEMU shows to its guest, feature by feature, read from its object model.

Not from `query-cpu-model-expansion`: that tells what the model's name stands for, also where the accelerator
then silently withholds a feature.
"""

from __future__ import annotations

import asyncio

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


async def features(qmp: Qmp) -> dict[str, bool]:
    """Feature name → whether the first CPU has it. All CPUs of one VM are alike."""
    cpus = await qmp.execute("query-cpus-fast")
    if not cpus:
        raise ToolError(
            "this QEMU has no CPU", kind="no-cpu", remedy="it was started with -M none; start a VM"
        )
    path = cpus[0]["qom-path"]
    listed = await qmp.execute("qom-list", {"path": path})
    names = sorted(entry["name"] for entry in listed if _is_feature(entry["name"], entry["type"]))
    values = await asyncio.gather(
        *(qmp.execute("qom-get", {"path": path, "property": name}) for name in names)
    )
    return dict(zip(names, map(bool, values), strict=True))


def _is_feature(name: str, kind: str) -> bool:
    return kind == "bool" and name not in _SETTINGS and not name.startswith("x-")
