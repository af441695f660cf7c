"""System files against the image's own package databases, of whatever kind.

Promise: a file of a package that is gone, or has another content, is told, though nobody took a baseline.
Limit: the database is the guest's: who can write a program can write its digest. It shows damage and the
careless, and proves nothing against the careful; that takes a baseline from before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from korora.model.files import FileRecord
from korora.model.packages import PackageKind, Packages, Stated

MAX_LINKS: Final = 40
_SET_ID: Final = 0o6000
_CAPABILITY: Final = "security.capability"
Finding = Literal["changed", "missing", "configured", "not a file", "unread", "privileged"]
Files = Mapping[bytes, FileRecord]


@dataclass(frozen=True, slots=True)
class SystemFinding:
    """`configured`: a configuration file that differs, as its administrator may want it. `privileged`: a
    program with more rights than whoever starts it, which no package (`package` is empty) or not its own
    gave it. `path`: as the package spells it; `file`: what lies there, where its folders' links lead.
    """

    finding: Finding
    path: bytes
    package: str
    kind: PackageKind | None = None
    file: FileRecord | None = None
    volume: int = 0


def compared(databases: Sequence[Packages], files: Files) -> Iterator[SystemFinding]:
    """The system's files of one root, by path, against all of its databases."""
    system = _System(files)
    for database in databases:
        for path, stated in sorted(database.stated.items()):
            file = system.files.get(system.resolved(database.diverted.get(path, path)))
            if finding := _found(file, stated):
                yield SystemFinding(finding, path, stated.package, database.kind, file)
    if all(database.is_there or not database.problems for database in databases):
        yield from _privileged(databases, system)


class _System:
    """Its files, and where its folders lead to, each found once."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self._folders: dict[bytes, bytes] = {}

    def resolved(self, path: bytes) -> bytes:
        begin = path.rfind(b"/") + 1
        folder = path[:begin]
        if (leads := self._folders.get(folder)) is None:
            leads = self._folders[folder] = resolved(folder, self.files)
        return leads + path[begin:]


def _found(file: FileRecord | None, stated: Stated) -> Finding | None:
    if file is None:
        return None if stated.optional else "missing"
    if file.kind != "file":
        return "not a file"
    digest = {"md5": file.md5, "sha256": file.sha256, "other": None}[stated.algorithm]
    if digest is None:
        return "unread"
    if digest == stated.digest:
        return None
    return "configured" if stated.configured else "changed"


def _privileged(databases: Sequence[Packages], system: _System) -> Iterator[SystemFinding]:
    """Where a database was not read at all, nobody knows what no package brought."""
    owned: dict[bytes, Stated | None] = {}
    kinds: dict[bytes, PackageKind] = {}
    for database in databases:
        for path in database.owned | database.stated.keys():
            there = system.resolved(database.diverted.get(path, path))
            owned[there], kinds[there] = database.stated.get(path), database.kind
    for path, file in system.files.items():
        if file.kind != "file" or not file.mode & 0o111:
            continue
        stated = owned.get(path)
        if path not in owned or stated is None:
            if path not in owned and _gains(file, 0, capabilities=False):
                yield SystemFinding("privileged", path, "", file=file)
        elif stated.mode is not None and _gains(file, stated.mode, capabilities=stated.capabilities):
            yield SystemFinding("privileged", path, stated.package, kinds[path], file)


def _gains(file: FileRecord, mode: int, *, capabilities: bool | None) -> bool:
    """Rights beyond these."""
    has_more = capabilities is False and _CAPABILITY in (file.xattrs or {})
    return has_more or bool(file.mode & _SET_ID & ~mode)


def resolved(path: bytes, files: Mapping[bytes, FileRecord]) -> bytes:
    """Where it leads once the links in its folders are followed, as /bin is /usr/bin; its last part stays."""
    for _ in range(MAX_LINKS):
        for at in _folders(path):
            above = files.get(at)
            if above is not None and above.kind == "symlink":
                path = _joined(at, above.target) + path[len(at) :]
                break
        else:
            return path
    return path


def _folders(path: bytes) -> Iterable[bytes]:
    at = path.find(b"/", 1)
    while at != -1:
        yield path[:at]
        at = path.find(b"/", at + 1)


def _joined(link: bytes, target: bytes) -> bytes:
    parts = [] if target.startswith(b"/") else link.split(b"/")[1:-1]
    for part in target.split(b"/"):
        if part == b"..":
            parts = parts[:-1]
        elif part not in {b"", b"."}:
            parts.append(part)
    return b"/" + b"/".join(parts)
