"""How large a host's content store may become: the table `[store]` of hostd.toml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from korora.model.stored import Bounds

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
    migration; 0: nothing is looked up."""

    folder: Path
    bounds: Bounds = Bounds(KEPT_GIB << 30, ENTRIES)  # noqa: RUF009  (frozen)
    session_bytes: int = SESSION_MIB << 20
