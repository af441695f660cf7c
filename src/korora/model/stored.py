"""What a host's content store has, and what became of it: nouns of `ports.content_store`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, NewType

from korora.errors import UsageError
from korora.model.identity import checked_name

TenantName = NewType("TenantName", str)
_SHARED: Final = "shared"
_TENANT: Final = "tenant-"


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """Whose content it is: one tenant's, or, without one, everybody's: what the operator marked as shared."""

    tenant: TenantName | None = None

    @property
    def folder(self) -> str:
        return _SHARED if self.tenant is None else f"{_TENANT}{self.tenant}"

    def __str__(self) -> str:
        return _SHARED if self.tenant is None else f"tenant {self.tenant}"


SHARED: Final = Scope()


def scope_of(tenant: str | None) -> Scope:
    """UsageError(kind="bad-name") for a name that is not safe in a path."""
    return SHARED if tenant is None else Scope(TenantName(checked_name(tenant, "tenant")))


def scope_in(folder: str) -> Scope | None:
    """Whose folder of that name is; None if it is nobody's."""
    if folder == _SHARED:
        return SHARED
    name = folder.removeprefix(_TENANT)
    try:
        return scope_of(name) if name != folder else None
    except UsageError:
        return None


class Kind(StrEnum):
    REFERENCE = "reference"  # parts of a file that is on this host anyway: nothing is copied
    KEPT = "kept"  # the store's own copies
    LEARNT = "learnt"  # a reference that nobody added: to a disk that came with a VM
    FOUND = "found"  # one that was learnt, and that has had something for another VM since


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of each scope by itself, so that no tenant's content displaces another's."""

    bytes: int
    entries: int


@dataclass(frozen=True, slots=True)
class Located:
    """A part of a file: its bytes from `offset` on have that name."""

    offset: int
    length: int
    name: bytes


@dataclass(frozen=True, slots=True)
class Origin:
    """Where parts come from: a file, or what was kept at one time. Forgotten as a whole.

    `path`: of a reference the file, of kept parts what the operator called them. `size`: what it keeps.
    """

    scope: Scope
    number: int
    kind: Kind
    path: Path
    entries: int
    size: int
    used_at: int


@dataclass(frozen=True, slots=True)
class Added:
    """`complete`: False if a bound left no room for the rest."""

    origin: int
    entries: int
    size: int
    complete: bool


@dataclass(frozen=True, slots=True)
class Stat:
    """One scope. `changed`, `gone`, `rotted`, `rebuilt`: how often, since the index was made."""

    scope: Scope
    origins: int
    entries: int
    kept: int
    size: int
    index_size: int
    changed: int
    gone: int
    rotted: int
    rebuilt: int


@dataclass(frozen=True, slots=True)
class Verified:
    """Every entry of a scope was read; what is not `sound` was dropped. `rotted`: own copies, by name."""

    scope: Scope
    sound: int
    changed: int
    gone: int
    rotted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Collected:
    """What was taken away from a scope. `leftovers`: files of writers that did not come to their end."""

    scope: Scope
    origins: int
    entries: int
    size: int
    leftovers: int


class Trouble(StrEnum):
    CHANGED = "changed"  # a file that was referred to has other bytes there now; nothing unusual
    GONE = "gone"  # a file that was referred to is not that file any more
    ROTTED = "rotted"  # an own copy is not what it was: the storage fails, or somebody wrote to it
    REBUILT = "rebuilt"  # the index was lost or damaged; references must be added again


@dataclass(frozen=True, slots=True)
class Found:
    """Something that was not as the index said; it was dropped."""

    scope: Scope
    trouble: Trouble
    what: str
