"""How large a host's content store may become, and whose content it is: table `[store]` of hostd.toml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from korora.model.identity import VmName
from korora.model.stored import Bounds, TenantName

NAME: Final = "store"
KEPT_GIB: Final = 16
ENTRIES: Final = 1 << 24
SESSION_MIB: Final = 128
MOST_GIB: Final = 1 << 20
MOST_ENTRIES: Final = 1 << 32
MOST_SESSION_MIB: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """`bounds`: of each tenant, and of what is shared. `session_bytes`: verified bytes that are held for one
    migration; 0: nothing is looked up, or learnt. `tenants`: with patterns of their VMs' names (`*`, `?`,
    `[…]`), the first that fits counts; `tenant`: whose all others are; None: nobody's."""

    folder: Path
    bounds: Bounds = Bounds(KEPT_GIB << 30, ENTRIES)  # noqa: RUF009  (frozen)
    session_bytes: int = SESSION_MIB << 20
    tenant: TenantName | None = None
    tenants: Mapping[TenantName, tuple[str, ...]] = field(default_factory=dict)

    def tenant_of(self, vm: VmName) -> TenantName | None:
        """Whose VM that is, by this host's configuration alone: nobody else's word counts."""
        for tenant, patterns in self.tenants.items():
            if any(fnmatchcase(vm, pattern) for pattern in patterns):
                return tenant
        return self.tenant
