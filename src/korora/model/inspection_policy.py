"""inspection.toml: what is looked at before a VM leaves, what gates the move and what is only reported.

Pure: paths are as they are written. Every refusal is UsageError(kind="bad-definition") with the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from korora.model.identity import VmName, checked_name
from korora.model.inspection import Check, Disposition
from korora.model.strict_toml import PATH_MAX_CHARS, StrictTable, read_toml

OFF: Final[Mapping[Check, Disposition]] = MappingProxyType(dict.fromkeys(Check, Disposition.OFF))
_UNWRITTEN: Final = dict.fromkeys(Check, Disposition.REPORT)
_NEVER_FOUND: Final = {Check.FILES: "files are a baseline: nothing is found, so nothing can be flagged"}


@dataclass(frozen=True, slots=True)
class InspectionPolicy:
    """`checks` of most VMs, `of` those that are named. `engines`: a scan.toml; `indicators`: a store;
    `configuration`: files beside the definition, in which `{vm}` stands for the name; `allow`: other files
    that disks may be built upon, such as templates; `arrivals`: checks that a VM must have passed at its
    source before it comes here. `original_bytes`: what
    is kept of one original at most; `within_s`: how long one inspection may take."""

    checks: Mapping[Check, Disposition] = field(default_factory=lambda: OFF)
    of: Mapping[VmName, Mapping[Check, Disposition]] = field(default_factory=dict)
    engines: str | None = None
    indicators: str | None = None
    configuration: tuple[str, ...] = ()
    arrivals: tuple[Check, ...] = ()
    allow: tuple[str, ...] = ()
    original_bytes: int = 4 << 20
    within_s: float = 6 * 3600.0

    def checks_of(self, vm: VmName) -> Mapping[Check, Disposition]:
        return self.of.get(vm, self.checks)

    def looks(self, vm: VmName) -> bool:
        """Whether anything is looked at."""
        return any(one is not Disposition.OFF for one in self.checks_of(vm).values())


def parse_inspection_policy(text: str, origin: str) -> InspectionPolicy:
    root = StrictTable(read_toml(text, origin), "", origin)
    checks = _checks(root.table("checks"), _UNWRITTEN)
    limits = root.table("limits")
    policy = InspectionPolicy(
        checks=checks,
        of=_of(root.table("vms"), checks),
        engines=root.text("engines", limit=PATH_MAX_CHARS) if root.has("engines") else None,
        indicators=root.text("indicators", limit=PATH_MAX_CHARS) if root.has("indicators") else None,
        configuration=root.texts("configuration"),
        allow=root.texts("allow"),
        arrivals=_arrivals(root),
        original_bytes=limits.number("original_mib", 0, 64, 4) << 20,
        within_s=limits.number("minutes", 1, 7 * 24 * 60, 360) * 60.0,
    )
    limits.end()
    root.end()
    return policy


def _arrivals(root: StrictTable) -> tuple[Check, ...]:
    words, known = root.texts("arrivals"), [one.value for one in Check]
    for word in words:
        if word not in known:
            raise root.refuse("arrivals", f"names {word[:80]!r}", "use some of " + ", ".join(known))
    return tuple(dict.fromkeys(Check(word) for word in words))


def _checks(table: StrictTable, otherwise: Mapping[Check, Disposition]) -> Mapping[Check, Disposition]:
    said = {}
    for check in Check:
        word = table.one_of(check.value, tuple(one.value for one in Disposition), otherwise[check].value)
        said[check] = Disposition(word)
        if check in _NEVER_FOUND and said[check] in {Disposition.FLAG, Disposition.BLOCK}:
            raise table.refuse(check.value, f"is {word!r}", f'write "report" or "off": {_NEVER_FOUND[check]}')
    table.end()
    return MappingProxyType(said)


def _of(
    table: StrictTable, otherwise: Mapping[Check, Disposition]
) -> dict[VmName, Mapping[Check, Disposition]]:
    """Each VM's own, with what it leaves out as for the others."""
    found: dict[VmName, Mapping[Check, Disposition]] = {}
    for name in table.keys():  # noqa: SIM118 (not a dict: taking a key takes it out)
        vm = table.table(name)
        found[VmName(checked_name(name, "VM"))] = _checks(vm.table("checks"), otherwise)
        vm.end()
    table.end()
    return found
