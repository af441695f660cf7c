"""The package databases of a disk: found by their paths in any root of it, and compared with its files.

A root is where a system lies: the top of a volume or, on btrfs, a subvolume with one of the names that
distributions give it. Limit: a system elsewhere is compared with no packages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

from korora.adapters.packages import rpm
from korora.adapters.packages.rpm import RpmDatabase
from korora.agents.integrity.files.packages import dpkg
from korora.agents.integrity.files.packages.dpkg import DpkgDatabase
from korora.agents.integrity.files.packages.verifying import SystemFinding, compared
from korora.model.files import Beside, Content, FileRecord, Problem
from korora.model.packages import Made, Packages
from korora.ports.packages import PackageDatabase

ROOTS: Final = (b"", b"/@", b"/@rootfs", b"/root", b"/@/.snapshots/*/snapshot")
MAX_DATABASES: Final = 64
MAX_BYTES: Final = 1 << 30
"""Of databases on one disk, all together."""
_Kind = tuple[tuple[bytes, ...], tuple[bytes, ...], tuple[Made, ...], Callable[[], PackageDatabase]]
_KINDS: Final[tuple[_Kind, ...]] = (
    (dpkg.FOLDERS, dpkg.WANTED, dpkg.ALGORITHMS, DpkgDatabase),
    (rpm.FOLDERS, rpm.WANTED, rpm.ALGORITHMS, RpmDatabase),
)
WANTED: Final = tuple(
    root + folder + name
    for root in ROOTS
    for folders, names, _, _ in _KINDS
    for folder in folders
    for name in names
)
BESIDE: Final = tuple(
    Beside(algorithm, (root + folder).rstrip(b"/"))
    for root in ROOTS
    for folders, _, algorithms, _ in _KINDS
    for folder in folders
    for algorithm in algorithms
)
"""What a disk's package databases may state of its files."""
_TOO_MUCH: Final = "there are too many, or they are too large"
Files = Mapping[tuple[int, bytes], FileRecord]


@dataclass(frozen=True, slots=True)
class Database:
    """Of the root at this path (empty: the volume's top)."""

    volume: int
    root: bytes
    packages: Packages


class Gathering:
    """Takes the contents of databases as they come. Leave it, and nothing of them is on this machine."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._found: dict[tuple[int, bytes, bytes], PackageDatabase] = {}
        self._bytes = 0
        self.problems: list[Problem] = []

    def __enter__(self) -> Gathering:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def take(self, content: Content) -> None:
        for folders, _, _, make in _KINDS:
            for folder in folders:
                root, found, _ = content.path.partition(folder)
                if found:
                    self._take((content.volume, root, folder), content, make)
                    return

    def _take(
        self, key: tuple[int, bytes, bytes], content: Content, make: Callable[[], PackageDatabase]
    ) -> None:
        self._bytes += len(content.content)
        if self._bytes > MAX_BYTES or (key not in self._found and len(self._found) >= MAX_DATABASES):
            if not self.problems:
                self.problems.append(Problem("package databases", _TOO_MUCH))
            return
        if key not in self._found:
            self._found[key] = make()
            self._open.callback(self._found[key].close)
        self._found[key].take(content)

    def read(self) -> list[Database]:
        """What they say; what could not be read of them is in `problems`."""
        databases = []
        for (volume, root, _), database in self._found.items():
            packages = database.read()
            where = f"volume {volume}: package database"
            self.problems += [Problem(where, said[:4096]) for said in packages.problems]
            databases.append(Database(volume, root, packages))
        return databases


def findings(databases: list[Database], files: Files) -> Iterator[SystemFinding]:
    """Of every root that has a package database."""
    roots: dict[tuple[int, bytes], list[Packages]] = {}
    for one in databases:
        roots.setdefault((one.volume, one.root), []).append(one.packages)
    for (volume, root), packages in roots.items():
        if any(one.is_there for one in packages):
            inside = {
                path[len(root) :]: file
                for (number, path), file in files.items()
                if number == volume and path.startswith(root + b"/")
            }
            for found in compared(packages, inside):
                yield replace(found, path=root + found.path, volume=volume)
