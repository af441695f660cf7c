"""What a package database inside of an image says of the system's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Made: TypeAlias = Literal["md5", "sha256"]
"""What is made of a system's files, to be compared."""
Algorithm: TypeAlias = Made | Literal["other"]
PackageKind: TypeAlias = Literal["Debian", "RPM"]


@dataclass(frozen=True, slots=True)
class Stated:
    """Of one file. `digest`: lower-case hex. `configured`: it is for the administrator to change. `optional`:
    it may be gone. `mode`, `capabilities`: permission bits, whether it has capabilities; None if not said.
    """

    algorithm: Algorithm
    digest: str
    package: str
    configured: bool = False
    optional: bool = False
    mode: int | None = None
    capabilities: bool | None = None


@dataclass(frozen=True, slots=True)
class Packages:
    """Of one database. `owned`: paths of packages, with and without a digest. `diverted`: path → where it is.

    `problems`: what of it was not understood; while there is one, more may be of packages than is said.
    """

    kind: PackageKind
    stated: Mapping[bytes, Stated] = field(default_factory=dict)
    owned: AbstractSet[bytes] = frozenset()
    diverted: Mapping[bytes, bytes] = field(default_factory=dict)
    problems: Sequence[str] = ()

    @property
    def is_there(self) -> bool:
        return bool(self.stated)
